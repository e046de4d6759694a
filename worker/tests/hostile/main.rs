//! The checks of `worker/fuzz` on fixed inputs: valid documents, and damaged copies of them.

mod support;

mod archive;
mod cache;
mod documents;
mod users;

use support::Random;

/// Calls a check with each seed, and with `rounds` damaged copies of it.
fn try_all(seeds: &[&[u8]], rounds: usize, check: fn(&[u8])) {
    for (number, seed) in seeds.iter().enumerate() {
        check(seed);
        let mut random = Random(number as u64 + 1);
        for _ in 0..rounds {
            check(&random.damage(seed));
        }
    }
}

#[test]
fn users_are_who_the_files_say() {
    try_all(users::SEEDS, 3000, users::check);
}

#[test]
fn documents_mean_the_same_when_they_are_written_again() {
    try_all(documents::SEEDS, 3000, documents::check);
}

#[test]
fn archives_give_complete_images_or_none() {
    try_all(archive::SEEDS, 60, archive::check);
    let counts: Vec<usize> = archive::SEEDS.iter().map(|seed| archive::count(seed)).collect();
    assert_eq!(counts, [1, 1, 1]);
}

#[test]
fn caches_give_whole_chains_or_nothing() {
    try_all(cache::SEEDS, 60, cache::check);
    assert_eq!(cache::count(cache::SEEDS[0]), 2);
}
