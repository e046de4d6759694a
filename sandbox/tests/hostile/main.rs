//! The checks of `sandbox/fuzz` on fixed inputs: valid files, and damaged copies of them.

#![allow(clippy::disallowed_methods, reason = "tests open the files that they create")]

mod users;

use kiln_testkit::try_damaged;

#[test]
fn users_are_who_the_files_say() {
    try_damaged(users::SEEDS, 3000, users::check);
}
