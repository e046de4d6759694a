//! The bases of stages: images, named contexts, or nothing.

use std::collections::HashMap;

use kiln_llb::op::SourceOp;
use kiln_oci::{ImageConfig, Platform, Reference};

use crate::error::Error;
use crate::expand::EmptyEnv;
use crate::lint::rules;
use crate::resolve::{ImageLocation, ImageRequest, ResolveError, ResolveMode, ResolvedImage};
use crate::suggest::{Case, suggest};
use crate::text::quote;

use super::graph::{Output, Plan};
use super::named_context::NamedContext;
use super::stage::{StageId, State};
use super::{Lowering, image, metadata, reference, step_name};

/// The images that error messages suggest for a name that can't be resolved.
const COMMON_IMAGES: [&str; 7] =
    ["alpine", "busybox", "centos", "debian", "golang", "ubuntu", "fedora"];

/// A stage whose base is not resolved yet.
struct Pending {
    stage: StageId,
    /// The base as the `FROM` names it.
    written: String,
    platform: Platform,
    kind: Kind,
}

enum Kind {
    /// A named context that replaces the stage.
    Stage(NamedContext),
    /// A named context that replaces the base image.
    Base(NamedContext),
    /// An image to resolve.
    Image(Reference),
}

type Answers = HashMap<ImageRequest, Result<ResolvedImage, ResolveError>>;

impl Lowering<'_> {
    /// Resolves the bases of all stages that aren't built on another stage.
    ///
    /// # Errors
    /// Fails on malformed names, even in stages that the target doesn't need, and on images that
    /// can't be resolved.
    pub(super) fn resolve_bases(&mut self, reachable: &[bool]) -> Result<(), Error> {
        let mut pending = Vec::new();
        let mut malformed: Option<Error> = None;
        for (id, reached) in reachable.iter().enumerate() {
            let stage = &mut self.stages[id];
            if stage.base.is_some() || stage.dispatched || stage.resolved {
                continue;
            }
            // Triggers may make the stage reachable later.
            stage.resolved = *reached;
            if stage.base_name == "scratch" && stage.named_context.is_none() {
                self.set_scratch(id);
            } else {
                match self.find_base(id, *reached) {
                    Ok(found) => pending.extend(found),
                    // The reference checks all names at once and reports the last one.
                    Err(error) => drop(malformed.replace(error)),
                }
            }
        }
        if let Some(error) = malformed {
            return Err(error);
        }
        let answers = self.ask(&pending)?;
        let mut last = None;
        for base in pending {
            let id = base.stage;
            if let Err(error) = self.set_base(base, &answers) {
                self.errors.extend(last.replace(self.stages[id].error_at(error)));
            }
            let stage = &mut self.stages[id];
            stage.dispatched |= stage.unregistered;
        }
        last.map_or(Ok(()), Err)
    }

    fn set_scratch(&mut self, id: StageId) {
        let target = &self.options.platform;
        let stage = &mut self.stages[id];
        stage.state = State::of(None, None);
        *stage.image_mut() = image::empty(target);
        stage.platform = Some(target.clone());
        stage.dispatched |= stage.unregistered;
    }

    fn find_base(&mut self, id: StageId, reached: bool) -> Result<Option<Pending>, Error> {
        let stage = &mut self.stages[id];
        let written = stage.base_name.clone();
        let parsed = reference::parse(&written).map_err(|error| {
            let message = format!("failed to parse stage name {}: {error}", quote(&written));
            stage.error_at(Error::new(message))
        })?;
        let platform = stage.platform.clone().unwrap_or_else(|| self.options.platform.clone());
        stage.base_name = parsed.to_string();
        if !reached {
            stage.dispatched |= stage.unregistered;
            self.set_unresolved(id, platform);
            return Ok(None);
        }
        let kind = match stage.named_context.take() {
            Some(context) => Kind::Stage(context),
            None => match self.contexts.find(&self.stages[id].base_name, &platform) {
                Ok(Some(context)) => Kind::Base(context),
                Ok(None) => Kind::Image(parsed),
                Err(error) => return Err(self.stages[id].error_at(error)),
            },
        };
        Ok(Some(Pending { stage: id, written, platform, kind }))
    }

    /// Adds the image of a stage that the target doesn't need yet, without resolving it. If a
    /// trigger needs the instruction that names the image later, the image stays unresolved.
    fn set_unresolved(&mut self, id: StageId, platform: Platform) {
        let named = self.named_platform(&platform);
        let output = self.add_image(id, named.as_ref(), &platform);
        let stage = &mut self.stages[id];
        stage.state = State::of(Some(output), Some(&platform));
        stage.platform = Some(platform);
    }

    /// Adds the base image of a stage to the graph.
    fn add_image(&mut self, id: StageId, named: Option<&Platform>, platform: &Platform) -> Output {
        let stage = &mut self.stages[id];
        let name = step_name::next(stage, &format!("FROM {}", stage.base_name), named, &EmptyEnv);
        let metadata = metadata::step(&name, stage.span);
        let metadata = metadata::with_command(metadata, &stage.original);
        let identifier = format!("docker-image://{}", stage.base_name);
        let mut source = SourceOp { identifier, ..SourceOp::default() };
        let mode = match self.options.resolve_mode {
            ResolveMode::Default => None,
            ResolveMode::Pull => Some("pull"),
            ResolveMode::Local => Some("local"),
        };
        if let Some(mode) = mode {
            source.attrs.insert("image.resolvemode".to_owned(), mode.to_owned());
        }
        self.graph.add(Plan::Source(source), Some(platform.clone()), metadata)
    }

    /// Resolves all images with one request.
    fn ask(&self, pending: &[Pending]) -> Result<Answers, Error> {
        let mut requests: Vec<ImageRequest> = Vec::new();
        let mut seen = std::collections::HashSet::new();
        for base in pending {
            let request =
                base.request().map_err(|error| self.stages[base.stage].error_at(error))?;
            requests.extend(request.filter(|request| seen.insert(request.clone())));
        }
        if requests.is_empty() {
            return Ok(Answers::new());
        }
        let answers = self.images.resolve(&requests);
        Ok(requests.into_iter().zip(answers).collect())
    }

    fn set_base(&mut self, mut base: Pending, answers: &Answers) -> Result<(), Error> {
        let mut answer = base.request()?.map(|request| {
            let missing = || Err(ResolveError::new(format!("no answer for {}", request.display)));
            answers.get(&request).cloned().unwrap_or_else(missing)
        });
        if let (Kind::Stage(context) | Kind::Base(context), Some(Err(error))) =
            (&mut base.kind, &answer)
            && let Some(identifier) = &error.moved
        {
            context.move_to(identifier);
            answer = None;
        }
        let Pending { stage, written, platform, kind } = base;
        match kind {
            Kind::Image(reference) => match answer {
                Some(Ok(image)) => {
                    let reference = image.reference.unwrap_or(reference);
                    self.stages[stage].base_name = reference.with_digest(image.digest).to_string();
                    self.set_image(stage, &written, platform, image.config);
                    Ok(())
                }
                Some(Err(error)) => Err(self.unresolved(&written, error)),
                None => Err(Error::new(format!("{written}: not resolved"))),
            },
            Kind::Stage(context) | Kind::Base(context) if matches!(answer, Some(Err(_))) => {
                Err(match answer.and_then(Result::err) {
                    Some(error) => Error::new(error.to_string()).because(error),
                    None => Error::new(context.value),
                })
            }
            Kind::Stage(context) => self.set_stage(stage, &context, answer.and_then(Result::ok)),
            Kind::Base(context) => {
                let paths = self.stages[stage].paths;
                let (state, config) = context.load(self, answer.and_then(Result::ok), paths)?;
                let config = config.unwrap_or_else(|| image::empty(&platform));
                let stage = &mut self.stages[stage];
                stage.state = State { platform: Some(platform.normal()), ..state };
                *stage.image_mut() = config;
                stage.platform = Some(platform);
                Ok(())
            }
        }
    }

    fn set_stage(
        &mut self,
        id: StageId,
        context: &NamedContext,
        image: Option<ResolvedImage>,
    ) -> Result<(), Error> {
        let paths = self.stages[id].paths;
        let (state, config) = context.load(self, image, paths)?;
        let stage = &mut self.stages[id];
        stage.dispatched = true;
        stage.state = state;
        if config.is_none() {
            // In the reference, the stage then has no image at all rather than an empty one.
            stage.image_mut().rootfs.kind.clear();
        }
        if let Some(config) = config {
            if !config.architecture.is_empty() && !config.os.is_empty() {
                stage.platform = Some(image::platform_of(&config));
            }
            *stage.image_mut() = config;
        }
        Ok(())
    }

    fn set_image(&mut self, id: StageId, written: &str, platform: Platform, config: ImageConfig) {
        let config = config.inherited();
        let named = self.named_platform(&platform);
        if image::is_empty(&config) {
            self.stages[id].state = State::of(None, None);
        } else {
            let output = self.add_image(id, named.as_ref(), &platform);
            self.stages[id].state = State::of(Some(output), Some(&platform));
            if platform.os != config.os || platform.architecture != config.architecture {
                let text = |p: &Platform| p.normal().specifier();
                let actual = text(&image::platform_of(&config));
                let finding =
                    rules::invalid_base_image_platform(written, &text(&platform), &actual);
                self.checks.report(finding, self.stages[id].span);
            }
        }
        let stage = &mut self.stages[id];
        *stage.image_mut() = config;
        stage.platform = Some(platform);
    }

    fn unresolved(&self, written: &str, error: ResolveError) -> Error {
        let common = COMMON_IMAGES.iter().flat_map(|name| {
            [
                (*name).to_owned(),
                format!("docker.io/library{name}"),
                format!("{name}:latest"),
                format!("docker.io/library{name}:latest"),
            ]
        });
        let names: Vec<String> = self.stages.names().map(str::to_owned).chain(common).collect();
        let message = format!("{written}: {error}");
        let names = names.iter().map(String::as_str);
        Error::new(suggest(message, written, names, Case::Sensitive)).because(error)
    }
}

impl Pending {
    fn request(&self) -> Result<Option<ImageRequest>, Error> {
        match &self.kind {
            Kind::Stage(context) | Kind::Base(context) => context.request(),
            Kind::Image(reference) => Ok(Some(ImageRequest {
                location: ImageLocation::Registry(reference.clone()),
                platform: self.platform.clone(),
                display: reference.to_string(),
            })),
        }
    }
}
