//! Builds an image from a Dockerfile in memory and a directory, and shows the progress:
//! `cargo run -p kiln --example embed -- STORE DIRECTORY`

#![expect(clippy::disallowed_methods, clippy::print_stdout, reason = "a program of its own")]

use kiln::build::BuildSpec;
use kiln::{Engine, Monitor, Options};
use kiln_event::Event;
use tokio::task::JoinSet;

const DOCKERFILE: &str = "FROM scratch\nCOPY . /srv\nLABEL made-by=embed\n";

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    kiln::init();
    let mut arguments = std::env::args().skip(1);
    let (Some(store), Some(directory)) = (arguments.next(), arguments.next()) else {
        return Err("usage: embed STORE DIRECTORY".into());
    };
    let engine = Engine::open(Options::new(store))?;
    let spec = BuildSpec::dockerfile(directory).text(DOCKERFILE).tag(&"embedded".parse()?);

    let (monitor, mut events) = Monitor::channel();
    let mut display = JoinSet::new();
    display.spawn(async move {
        while let Some(event) = events.recv().await {
            match event {
                Event::Vertex { id, name, .. } => println!("#{id} {name}"),
                Event::Completed { id, duration } => println!("#{id} done in {duration:?}"),
                Event::Cached { id } => println!("#{id} cached"),
                _ => {}
            }
        }
    });
    let outcome = engine.build(spec, monitor).await?;
    display.join_all().await;
    println!("{}", outcome.result?.exported.image_id.ok_or("no image")?);
    Ok(())
}
