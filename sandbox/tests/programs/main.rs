//! Tests of programs in the sandbox. They require root and a static busybox at `/bin/busybox`.
//!
//! Each topic is a file with a table of its tests. Each test gets a [`Room`] of its own.
//!
//! Most tests run once more with the isolation `chroot`, each in a process without `CAP_SYS_ADMIN`.

#![allow(clippy::disallowed_methods, reason = "tests open the files that they create")]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test without the usual harness, which the lints don't recognise as one"
)]

mod choices;
mod confinement;
mod emulated;
mod groups;
mod life;
mod mounts;
mod process;
mod room;
mod tree;

use std::path::Path;

use kiln_sandbox::{Isolation, init_if_asked};
use libtest_mimic::{Arguments, Failed, Trial};

use crate::room::Room;

type Test = fn(&Room);

const TOPICS: &[&[(&str, Test)]] = &[
    process::TESTS,
    confinement::TESTS,
    choices::TESTS,
    groups::TESTS,
    mounts::TESTS,
    life::TESTS,
];

/// The names of tests, each with the reason why an isolation can't pass it.
type Missing = &'static [(&'static str, &'static str)];

/// The isolations besides root's, with the prefix of their tests' names and the tests that they can't
/// pass.
const OTHERS: [(Isolation, &str, Missing); 2] = [
    (Isolation::Chroot, "in_a_tree::", NOT_IN_A_TREE),
    (Isolation::None, "without_privileges::", NOT_WITHOUT_PRIVILEGES),
];

/// The tests whose promises a program without any privileges can't have.
const NOT_WITHOUT_PRIVILEGES: Missing = &[
    ("further_programs_share_a_container", "there are no namespaces"),
    ("an_insecure_program_has_everything", "kiln itself has no privileges"),
    ("a_privileged_program_has_everything_where_it_is_root", "kiln itself has no privileges"),
    ("capabilities_are_those_that_were_chosen", "nothing can be mounted"),
    ("setuid_programs_gain_the_bounding_set", "nothing can be mounted"),
    ("a_program_can_be_unfiltered", "the supervisor needs a filter"),
    ("programs_of_32_bits_run_and_are_filtered", "the supervisor knows the native calls only"),
    ("no_network_is_no_network", "there is no loopback device of its own"),
    ("namespaces_can_be_shared_and_set", "there are no namespaces"),
    ("process_1_reaps_and_passes_on", "only process 1 has another number"),
    ("devices_work_and_others_do_not", "a record of a harmless device can be opened"),
    ("nodes_in_an_image_are_no_way_to_a_disk", "the test can't make nodes"),
    ("harmless_device_nodes_can_be_opened", "control groups can't be written"),
    ("control_groups_are_seen_and_not_written", "control groups can't be written"),
    ("a_program_is_in_its_groups_and_sees_no_more", "it sees the host's control groups"),
    ("memory_is_limited_and_its_end_told", "control groups can't be written"),
    ("file_systems_in_memory_have_options", "an empty directory stands for a tmpfs"),
    ("a_file_in_memory_grows_a_little", "nothing limits the size"),
    ("read_only_mounts_can_not_be_written", "it mounts an overlay"),
    ("selectors_stay_inside", "it mounts an overlay"),
    ("many_layers_are_mounted", "it mounts an overlay"),
];

/// The tests whose promises a program without namespaces and mounts can't have.
const NOT_IN_A_TREE: Missing = &[
    ("further_programs_share_a_container", "there are no namespaces"),
    ("capabilities_and_filters_are_dockers", "two capabilities are missing"),
    ("another_user_has_no_capabilities", "two capabilities are missing"),
    ("capabilities_are_those_that_were_chosen", "two capabilities are missing"),
    ("setuid_programs_gain_the_bounding_set", "no_new_privs is set"),
    ("a_program_can_be_unfiltered", "the supervisor needs a filter"),
    ("an_insecure_program_has_everything", "kiln itself has few privileges"),
    ("a_privileged_program_has_everything_where_it_is_root", "kiln itself has few privileges"),
    ("programs_of_32_bits_run_and_are_filtered", "the supervisor knows the native calls only"),
    ("no_network_is_no_network", "there is no loopback device of its own"),
    ("namespaces_can_be_shared_and_set", "there are no namespaces"),
    ("process_1_reaps_and_passes_on", "processes other than the first have the host's numbers"),
    (
        "devices_work_and_others_do_not",
        "nodes of other devices are refused, and not only opening them",
    ),
    ("harmless_device_nodes_can_be_opened", "control groups can't be written"),
    ("control_groups_are_seen_and_not_written", "control groups can't be written"),
    ("a_program_is_in_its_groups_and_sees_no_more", "it sees the host's control groups"),
    ("file_systems_in_memory_have_options", "an empty directory stands for a tmpfs"),
    ("a_file_in_memory_grows_a_little", "nothing limits the size"),
    ("read_only_mounts_can_not_be_written", "a copy stands for a read-only mount"),
    ("selectors_stay_inside", "it mounts an overlay"),
    ("many_layers_are_mounted", "it mounts an overlay"),
    ("the_host_sees_no_mount", "there are no mounts"),
];

fn main() {
    init_if_asked();
    if let Some(isolation) = room::chosen() {
        isolation.give_up_privileges().unwrap();
    }
    if let Some(word) = std::env::var_os(life::DOOMED) {
        return life::doomed(&word.to_string_lossy());
    }
    let arguments = Arguments::from_args();
    let skip = !rustix::process::geteuid().is_root() || !Path::new("/bin/busybox").exists();
    let here = |(name, test): &'static (&'static str, Test)| {
        Trial::test(*name, move || {
            test(&Room::new());
            Ok::<(), Failed>(())
        })
    };
    let mut trials: Vec<Trial> = match room::chosen() {
        Some(_) => usual().chain(tree::TESTS).chain(emulated::TESTS).map(here).collect(),
        None => usual().chain(emulated::TESTS).map(here).collect(),
    };
    if room::chosen().is_none() {
        trials.extend(OTHERS.into_iter().flat_map(|(isolation, prefix, missing)| {
            let tests = tests_of(isolation).filter(move |(name, _)| !has(missing, name));
            tests.map(move |(name, _)| {
                Trial::test(format!("{prefix}{name}"), move || run_in(isolation, name))
            })
        }));
    }
    let trials = trials.into_iter().map(|trial| trial.with_ignored_flag(skip)).collect();
    libtest_mimic::run(&arguments, trials).exit();
}

fn usual() -> impl Iterator<Item = &'static (&'static str, Test)> {
    TOPICS.iter().flat_map(|tests| tests.iter())
}

fn has(names: Missing, name: &str) -> bool {
    names.iter().any(|(other, _)| *other == name)
}

/// Returns the tests of an isolation: the usual ones, and its own.
fn tests_of(isolation: Isolation) -> impl Iterator<Item = &'static (&'static str, Test)> {
    let own = if isolation == Isolation::Chroot { tree::TESTS } else { emulated::TESTS };
    usual().chain(own)
}

/// Runs a test in a process of its own with another isolation.
fn run_in(isolation: Isolation, name: &str) -> Result<(), Failed> {
    let output = std::process::Command::new(std::env::current_exe()?)
        .args(["--exact", name, "--include-ignored"])
        .env(room::ISOLATION, isolation.name())
        .output()?;
    if output.status.success() {
        return Ok(());
    }
    let text = [output.stdout, output.stderr].concat();
    Err(Failed::from(String::from_utf8_lossy(&text).into_owned()))
}
