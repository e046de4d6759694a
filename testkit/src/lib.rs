//! Servers, environments and helper functions that the tests of the other crates share.

#![allow(clippy::disallowed_methods, reason = "tests open the files that they create")]
#![expect(
    clippy::panic,
    clippy::print_stderr,
    reason = "tests fail by panicking, and say what they skip"
)]

pub mod account;
pub mod base;
pub mod certificate;
pub mod container_engines;
pub mod damage;
pub mod docker_registry;
pub mod environment;
pub mod fake_engine;
pub mod fake_registry;
pub mod file_server;
pub mod needs;
pub mod peers;
pub mod publishings;
pub mod scanner;
pub mod tls_client;
pub mod world;

mod http;

pub use account::Account;
pub use certificate::{Certificate, CertificateOptions};
pub use damage::try_damaged;
pub use environment::{Kiln, Output};
pub use fake_registry::FakeRegistry;
pub use file_server::{Answer, FileServer};
pub use needs::{Need, skip};
pub use publishings::Publishings;
pub use tls_client::connect_tls;
pub use world::run_in_world;
