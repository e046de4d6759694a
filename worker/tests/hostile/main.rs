//! The checks of `worker/fuzz` on fixed inputs: valid documents, and damaged copies of them.

#![allow(clippy::disallowed_methods, reason = "tests open the files that they create")]

mod support;

mod archive;
mod cache;
mod documents;

use kiln_testkit::try_damaged;

#[test]
fn documents_mean_the_same_when_they_are_written_again() {
    try_damaged(documents::SEEDS, 3000, documents::check);
}

#[test]
fn archives_give_complete_images_or_none() {
    try_damaged(archive::SEEDS, 60, archive::check);
    let counts: Vec<usize> = archive::SEEDS.iter().map(|seed| archive::count(seed)).collect();
    assert_eq!(counts, [1, 1, 1]);
}

#[test]
fn caches_give_whole_chains_or_nothing() {
    try_damaged(cache::SEEDS, 60, cache::check);
    assert_eq!(cache::count(cache::SEEDS[0]), 2);
}
