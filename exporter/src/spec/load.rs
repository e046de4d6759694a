//! The keys of `type=docker` without `dest`: who takes the image.

use super::keys::{Checked, Keys};

/// Who is to take an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EngineChoice {
    /// Who: `docker`, `podman`, `containerd` or `kiln`; `None` for the first that is there.
    pub engine: Option<String>,
    /// The context that says where docker's engine is; `None` for the one in use.
    pub context: Option<String>,
}

const ENGINES: &[&str] = &["docker", "podman", "containerd", "kiln"];

/// Reads them.
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
