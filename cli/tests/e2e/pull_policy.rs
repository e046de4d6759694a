//! Preference between an image of the store and one of the registry with the same name.

use kiln_testkit::peers::DockerRegistry;
use kiln_testkit::{Kiln, Need, skip};

use crate::kiln;

/// Builds an image that prints `word`.
fn speaker(kiln: &Kiln, name: &str, word: &str) {
    let dockerfile = format!("FROM base\nRUN echo {word} > /word\nCMD [\"cat\", \"/word\"]\n");
    kiln.build_text(&dockerfile, &["-t", name]).success();
}

#[test]
fn who_is_asked_decides_which_image_it_is() {
    let needs = [Need::Root, Need::Program("docker-registry")];
    if skip("who_is_asked_decides_which_image_it_is", &needs) {
        return;
    }
    let (registry, kiln) = (DockerRegistry::start(), kiln());
    let name = format!("{}/speaker", registry.address());
    speaker(&kiln, &name, "registry");
    kiln.run(&["push", &name]).success();
    speaker(&kiln, &name, "store");
    let tell = format!("FROM {name}\nRUN cat /word > /told\nCMD [\"cat\", \"/told\"]\n");
    let told = |flags: &[&str]| {
        kiln.build_text(&tell, &[&["-t", "told"], flags].concat()).success();
        kiln.run(&["run", "--rm", "told"]).success()
    };
    assert_eq!(told(&[]), "store\n");
    assert_eq!(told(&["--pull"]), "registry\n");
    assert_eq!(told(&["--build-context", &format!("x=docker-image://{name}")]), "store\n");
    let copies = format!("FROM base\nCOPY --from={name} /word /told\nCMD [\"cat\", \"/told\"]\n");
    kiln.build_text(&copies, &["-t", "copied", "--pull"]).success();
    assert_eq!(kiln.run(&["run", "copied"]).success(), "registry\n");
    let says = |policy: &str| kiln.run(&["run", "--pull", policy, &name]).success();
    assert_eq!((says("missing"), says("never")), ("store\n".to_owned(), "store\n".to_owned()));
    assert_eq!(says("always"), "registry\n");

    // --pull ignores an image that only the store has; --pull=never ignores the registry.
    speaker(&kiln, &format!("{name}:local"), "store");
    let local = format!("FROM {name}:local\n");
    let stderr = kiln.build_text(&local, &["--pull"]).failure();
    assert!(stderr.contains("speaker:local") && stderr.contains("not found"), "{stderr}");
    kiln.run(&["rmi", &name]).success();
    let stderr = kiln.run(&["run", "--pull", "never", &name]).failure();
    assert!(stderr.contains("not in the store"), "{stderr}");
}
