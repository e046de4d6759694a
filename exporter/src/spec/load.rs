//! The keys of `type=docker` without `dest`: the engine that receives the image.

use super::keys::{Checked, Keys};

/// The user's choice of an engine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EngineChoice {
    /// The engine: `docker`, `podman`, `containerd` or `kiln`. `None` selects the first that is
    /// available.
    pub engine: Option<String>,
    /// The Docker context with the address of the engine. `None` selects the current context.
    pub context: Option<String>,
}

const ENGINES: &[&str] = &["docker", "podman", "containerd", "kiln"];

/// Reads the keys `engine` and `context`.
pub(super) fn choice(keys: &mut Keys) -> Checked<EngineChoice> {
    let given = |text: Option<String>| text.filter(|text| !text.is_empty());
    let engine = given(keys.take("engine"));
    if let Some(engine) = engine.as_deref().filter(|engine| !ENGINES.contains(engine)) {
        return Err(format!("unknown engine {engine:?}, expected one of {}", ENGINES.join(", ")));
    }
    let context = given(keys.take("context"));
    if context.is_some() && engine.as_deref().is_some_and(|engine| engine != "docker") {
        return Err("context is one of docker's".to_owned());
    }
    Ok(EngineChoice { engine, context })
}
