//! Tests of `kiln serve` by a client of BuildKit's API.
//!
//! Each scenario is a test of its own. All of them use one server. The same scenarios run against
//! the BuildKit in Debian's Docker engine, and both servers must answer alike; the table in
//! [`scenarios`] gives the reason for each exception.

#![allow(clippy::disallowed_methods, reason = "tests open the files that they create")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by them")]
#![expect(clippy::print_stdout, reason = "tests of memory print their figures")]

mod buildctl;
mod client;
mod configuration;
mod container;
mod ending;
mod graph;
mod hostile;
#[path = "../frontends/image.rs"]
mod image;
mod life;
mod limits;
mod memory;
#[path = "../frontends/program.rs"]
mod program;
mod reloading;
mod scenarios;
mod sockets;
mod target;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use kiln_testkit::{Need, skip};
use libtest_mimic::{Arguments, Failed, Trial};
use tokio::runtime::Runtime;

use crate::scenarios::{Case, Docker};
use crate::target::Target;

/// The servers of this run, started when the first scenario needs them.
#[derive(Clone)]
struct Subjects {
    runtime: Arc<Runtime>,
    world: Arc<OnceLock<Arc<target::World>>>,
    kiln: Arc<OnceLock<Target>>,
    docker: Arc<OnceLock<Target>>,
}

impl Subjects {
    fn world(&self) -> Arc<target::World> {
        Arc::clone(self.world.get_or_init(target::world))
    }

    fn kiln(&self) -> &Target {
        self.kiln.get_or_init(|| self.runtime.block_on(Target::kiln(self.world())))
    }

    fn docker(&self) -> &Target {
        self.docker.get_or_init(|| self.runtime.block_on(Target::docker(self.world())))
    }

    /// Runs a scenario on its subjects, and compares their answers.
    fn run(&self, case: &Case) -> Result<(), Failed> {
        if skip(case.name, &[Need::Root]) {
            return Ok(());
        }
        let run = |target: &Target| {
            self.runtime.block_on(async {
                let work = (case.run)(target);
                let limited = tokio::time::timeout(Duration::from_mins(1), work).await;
                limited.unwrap_or_else(|_| panic!("{} doesn't answer in time", target.name()))
            })
        };
        let ours = run(self.kiln());
        let is_compared = match case.docker {
            Docker::Same => true,
            Docker::Other(_) => false,
            Docker::Cannot(_) => return Ok(()),
        };
        if skip(case.name, &[Need::Program("dockerd"), Need::Program("docker")]) {
            return Ok(());
        }
        let theirs = run(self.docker());
        if is_compared && ours != theirs {
            return Err(format!("kiln answers\n{ours:#}\nand BuildKit\n{theirs:#}").into());
        }
        Ok(())
    }
}

/// Returns the tests that have a server of their own.
fn alone(subjects: &Subjects) -> Vec<Trial> {
    macro_rules! tests {
        ($($module:ident::$name:ident),* $(,)?) => {
            vec![$({
                let subjects = subjects.clone();
                Trial::test(stringify!($name), move || {
                    if !skip(stringify!($name), &[Need::Root]) {
                        let world = subjects.world();
                        subjects.runtime.block_on($module::$name(&world));
                    }
                    Ok(())
                })
            }),*]
        };
    }
    tests![
        // The longest test is the first one.
        life::many_clients_at_once,
        container::kilns_image_stands_in_for_buildkits,
        buildctl::buildctl_prints_as_buildkits,
        buildctl::buildctl_looks_after_the_cache,
        buildctl::clients_dial_by_standard_streams,
        buildctl::dialling_ends_each_direction_alone,
        hostile::garbage_in_every_call,
        hostile::thousands_of_streams,
        memory::messages_that_are_too_large,
        memory::large_messages_cost_bounded_memory,
        memory::readers_that_never_read,
        memory::a_slow_reader_costs_disk,
        memory::directories_pass_in_parts,
        hostile::packets_that_leave_the_directory,
        hostile::secrets_of_others,
        hostile::sessions_that_are_half_open,
        life::clients_that_are_killed,
        life::equal_steps_run_once,
        life::secrets_serve_their_client_alone,
        life::a_shared_step_outlives_a_client,
        ending::a_signal_lets_builds_end,
        ending::a_second_signal_ends_builds,
        ending::an_idle_server_ends,
        limits::builds_wait_for_their_turn,
        limits::steps_wait_for_each_other,
        limits::garbage_is_collected_by_rules,
        configuration::the_log_is_configured,
        configuration::the_network_of_steps_is_configured,
        configuration::the_platforms_are_configured,
        configuration::the_provenance_is_configured,
        reloading::the_configuration_is_reloaded,
        reloading::the_certificates_are_reloaded,
        sockets::passed_sockets_are_served,
        sockets::passed_sockets_are_found_by_name,
        sockets::a_group_may_use_the_socket,
        sockets::tcp_needs_tls,
        sockets::clients_need_certificates,
    ]
}

fn main() {
    if program::run_if_asked() {
        return;
    }
    let mut arguments = Arguments::from_args();
    // The scenarios wait for the servers most of the time.
    arguments.test_threads.get_or_insert(6);
    let runtime = Arc::new(Runtime::new().unwrap());
    if runtime.block_on(life::be_a_client()) {
        return;
    }
    let subjects =
        Subjects { runtime, world: Arc::default(), kiln: Arc::default(), docker: Arc::default() };
    let trials = scenarios::all().into_iter().map(|case| {
        let subjects = subjects.clone();
        Trial::test(case.name, move || subjects.run(&case))
    });
    let trials = alone(&subjects).into_iter().chain(trials).collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    drop(subjects);
    conclusion.exit();
}
