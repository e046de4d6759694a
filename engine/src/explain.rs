//! Explanations of why steps ran: a comparison of each step's key with its key in an earlier build.
//!
//! A build records three things. Its build record has the canonical key and the inputs of
//! each step. The store's *recipes* hold the parts of each key once, and its *listings* hold the
//! files behind each content digest once. And SQLite itself records when results are removed. kiln
//! computes everything else from the records when the user asks for an explanation. So a build
//! without one pays little, and any two builds can be compared.
//!
//! A step is compared with the same step of the latest earlier build that has it. kiln first
//! searches the builds of the same context and Dockerfile, with any target. Since the project may
//! have moved, it then searches other builds with mostly the same steps. `align` decides which
//! steps of two builds correspond.
//!
//! An explanation can only use recorded facts. Of credentials kiln knows only whether they are
//! equal, and removed records are lost.

mod align;
mod cause;
mod compare;
mod files;
mod recipe;

use anyhow::Result;
use kiln_store::{BuildRow, Builds, Store};
use serde::Serialize;

use self::align::Alignment;
use self::cause::date;
use self::compare::Side;
use crate::engine::Engine;
use crate::records::{BuildRecord, LookupRecord, MadeOf, RemovalRecord, StepStatus, find};

pub use self::cause::{Cause, Change, FileChange};
pub use self::recipe::{Recipe, Recorder};

/// The most earlier builds of the same context to search.
const FAMILY: u32 = 20;
/// The most other builds to search.
const OTHERS: u32 = 10;

/// The causes of the steps that ran, or the differences between two builds.
#[derive(Debug, Serialize)]
pub struct Explanation {
    /// The ID of the build.
    pub build: String,
    /// The ID of the other build, if the user names two.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compared_with: Option<String>,
    /// The steps, in the order of the build.
    pub steps: Vec<ExplainedStep>,
}

/// A step that ran or differs, with its causes.
#[derive(Debug, Serialize)]
pub struct ExplainedStep {
    /// The number in the build's output; zero if the step never started.
    pub number: u32,
    /// The step's name, as in the build's output.
    pub name: String,
    /// The step's status. A cached step is listed if other steps ran because of it.
    pub status: StepStatus,
    /// The ID of the build that the step was compared with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compared_with: Option<String>,
    /// The causes, the nearest first; never empty.
    pub causes: Vec<Cause>,
}

/// An earlier build whose steps are aligned with those of the current one.
struct EarlierBuild {
    row: BuildRow,
    record: BuildRecord,
    alignment: Alignment,
}

impl Engine {
    /// Explains why the steps of a build ran or, with a later build, which of that one's steps differ.
    /// A build is named as for [`find`](crate::records::find).
    ///
    /// # Errors
    /// Fails if there is no such build, or if the store can't be read.
    pub fn explain(&self, build: &str, later: Option<&str>) -> Result<Explanation> {
        let (store, builds) = (&self.store, self.store.builds());
        let row = find(&builds, build)?;
        let record = BuildRecord::of(&row)?;
        let Some(later) = later else { return of_build(store, &row, &record) };
        let other = find(&builds, later)?;
        between(store, &row, &record, &other, &BuildRecord::of(&other)?)
    }
}

/// Explains why the steps of a build ran.
///
/// # Errors
/// Fails if the store can't be read.
pub fn of_build(store: &Store, row: &BuildRow, record: &BuildRecord) -> Result<Explanation> {
    let mut asker = Explainer { store, row, record, earlier: Vec::new(), loaded: 0 };
    let ran = |place: &usize| {
        let step = &record.steps[*place];
        step.made_of.is_some() && step.status.has_run()
    };
    let mut places: Vec<usize> = (0..record.steps.len()).filter(ran).collect();
    let mut steps = Vec::new();
    let mut at = 0;
    while let Some(place) = places.get(at).copied() {
        let (compared_with, causes) = asker.causes(place)?;
        let step = &record.steps[place];
        if !step.status.has_run() && matches!(causes.as_slice(), [Cause::Lost { .. }]) {
            // A cached step without a difference.
            at += 1;
            continue;
        }
        // Steps that were cached but differ from the earlier build are listed too: other steps ran
        // because of them.
        for cause in &causes {
            if let Cause::Step { step, instead_of: None } = cause
                && let Some(known) = asker.known(place, step)
                && !places.contains(&known)
            {
                places.push(known);
            }
        }
        let (number, name, status) = (step.number, step.name.clone(), step.status);
        steps.push((place, ExplainedStep { number, name, status, compared_with, causes }));
        at += 1;
    }
    steps.sort_by_key(|(place, _)| *place);
    let steps = steps.into_iter().map(|(_, step)| step).collect();
    Ok(Explanation { build: row.id.clone(), compared_with: None, steps })
}

/// Explains which steps of `new` differ from `old`. Each build comes with its record.
///
/// # Errors
/// Fails if the store can't be read.
pub fn between(
    store: &Store,
    old: &BuildRow,
    old_record: &BuildRecord,
    new: &BuildRow,
    new_record: &BuildRecord,
) -> Result<Explanation> {
    let alignment = align::align(&old_record.steps, &new_record.steps);
    let mut steps = Vec::new();
    let mut tell = |record: &BuildRecord, place: usize, causes| {
        let step = &record.steps[place];
        let (number, name, status) = (step.number, step.name.clone(), step.status);
        steps.push(ExplainedStep { number, name, status, compared_with: None, causes });
    };
    for (place, step) in new_record.steps.iter().enumerate() {
        let Some(made_of) = &step.made_of else { continue };
        let Some(old_place) = alignment.old_of[place] else {
            tell(new_record, place, vec![Cause::Added]);
            continue;
        };
        if old_record.steps[old_place].made_of.as_ref().is_some_and(|it| it.key != made_of.key) {
            let causes = compared(store, old_record, new_record, old_place, place, &alignment)?;
            tell(new_record, place, causes);
        }
    }
    for (place, step) in old_record.steps.iter().enumerate() {
        if step.made_of.is_some() && !alignment.old_of.contains(&Some(place)) {
            tell(old_record, place, vec![Cause::Removed]);
        }
    }
    Ok(Explanation { build: new.id.clone(), compared_with: Some(old.id.clone()), steps })
}

/// A search for the causes of one build's steps.
struct Explainer<'a> {
    store: &'a Store,
    row: &'a BuildRow,
    record: &'a BuildRecord,
    /// The earlier builds to compare with, in order of preference.
    earlier: Vec<EarlierBuild>,
    /// The number of groups of earlier builds that were read: of the same context, and others.
    loaded: u8,
}

impl Explainer<'_> {
    /// Returns the build that a step was compared with, and the step's causes.
    fn causes(&mut self, place: usize) -> Result<(Option<String>, Vec<Cause>)> {
        let Some(made_of) = &self.record.steps[place].made_of else {
            return Ok((None, vec![Cause::Unknown]));
        };
        if let Some(cause) = self.not_looked_up(made_of.lookup, made_of.because) {
            return Ok((None, vec![cause]));
        }
        match made_of.removed {
            Some(RemovalRecord::Pruned(at)) => {
                return Ok((None, vec![Cause::Pruned { at: date(at) }]));
            }
            Some(RemovalRecord::Lost(at)) => {
                return Ok((None, vec![Cause::Lost { at: Some(date(at)) }]));
            }
            None => {}
        }
        let Some(found) = self.same_step(place, made_of)? else {
            let cause = if made_of.seen { Cause::Lost { at: None } } else { Cause::NeverBuilt };
            return Ok((None, vec![cause]));
        };
        let (earlier, old_place) = (&self.earlier[found.0], found.1);
        let old_step = &earlier.record.steps[old_place];
        let id = earlier.row.id.clone();
        if old_step.made_of.as_ref().is_some_and(|it| it.key == made_of.key) {
            let (build, status) = (id.clone(), old_step.status);
            let cause = match status {
                StepStatus::Cached | StepStatus::Completed => Cause::Lost { at: None },
                StepStatus::Failed => Cause::Unfinished { build, status: "failed" },
                _ => Cause::Unfinished { build, status: "canceled" },
            };
            return Ok((Some(id), vec![cause]));
        }
        let (old, new, alignment) = (&earlier.record, self.record, &earlier.alignment);
        let causes = compared(self.store, old, new, old_place, place, alignment)?;
        Ok((Some(id), causes))
    }

    /// Returns the reason why the cache wasn't searched for a step's result; `None` if it was.
    fn not_looked_up(&self, lookup: LookupRecord, because: Option<usize>) -> Option<Cause> {
        let step = because.and_then(|place| self.record.steps.get(place));
        let step = step.map_or_else(|| "another step".to_owned(), |step| step.name.clone());
        match lookup {
            LookupRecord::Asked => None,
            LookupRecord::Fresh => Some(Cause::Fresh { step }),
            LookupRecord::Ephemeral => Some(Cause::Ephemeral { step }),
            LookupRecord::Ignored => {
                let is_filter = self.record.no_cache.as_ref().is_some_and(|it| !it.is_empty());
                let option = if is_filter { "--no-cache-filter" } else { "--no-cache" };
                Some(Cause::NoCache { option })
            }
        }
    }

    /// Returns the index of the latest earlier build that has the step, and the step's index there.
    /// Prefers a step with the same key, which was interrupted or lost its result.
    fn same_step(&mut self, place: usize, made_of: &MadeOf) -> Result<Option<(usize, usize)>> {
        let mut at = 0;
        let mut found = None;
        while found.is_none() || made_of.seen {
            if at == self.earlier.len() && !self.load()? {
                break;
            }
            if let Some(earlier) = self.earlier.get(at) {
                let step = earlier.alignment.old_of[place];
                let old = step.and_then(|step| earlier.record.steps[step].made_of.as_ref());
                if let (Some(step), Some(old)) = (step, old) {
                    if old.key == made_of.key {
                        return Ok(Some((at, step)));
                    }
                    found = found.or(Some((at, step)));
                }
                at += 1;
            }
        }
        Ok(found)
    }

    /// Reads the next group of earlier builds. Returns `false` if all groups have been read.
    fn load(&mut self) -> Result<bool> {
        let builds: Builds = self.store.builds();
        let rows = match self.loaded {
            0 => builds.before(self.row, true, FAMILY)?,
            1 => builds.before(self.row, false, OTHERS)?,
            _ => return Ok(false),
        };
        for row in rows {
            // Skip an unreadable record.
            let Ok(record) = BuildRecord::of(&row) else { continue };
            let alignment = align::align(&record.steps, &self.record.steps);
            let steps = self.record.steps.iter().filter(|step| step.digest.is_some()).count();
            // In another project, an unrelated step may look the same.
            if self.loaded == 0 || alignment.equal * 2 > steps {
                self.earlier.push(EarlierBuild { row, record, alignment });
            }
        }
        self.loaded += 1;
        Ok(true)
    }

    /// Returns the index of the cached input of a step that has a name.
    fn known(&self, place: usize, name: &str) -> Option<usize> {
        let inputs = &self.record.steps[place].made_of.as_ref()?.inputs;
        inputs.iter().copied().find(|input| {
            let step = &self.record.steps[*input];
            step.name == name && step.made_of.is_some() && step.status == StepStatus::Cached
        })
    }
}

/// Compares a step of two builds.
fn compared(
    store: &Store,
    old: &BuildRecord,
    new: &BuildRecord,
    old_place: usize,
    new_place: usize,
    alignment: &Alignment,
) -> Result<Vec<Cause>> {
    let recipe = |build: &BuildRecord, place: usize| -> Result<Option<Recipe>> {
        let Some(made_of) = &build.steps[place].made_of else { return Ok(None) };
        let text = store.recipes().get(&made_of.key)?;
        Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
    };
    let recipes = (recipe(old, old_place)?, recipe(new, new_place)?);
    let (Some(old_recipe), Some(new_recipe)) = &recipes else {
        return Ok(vec![Cause::Unknown]);
    };
    let old = Side { build: old, place: old_place, recipe: old_recipe };
    let new = Side { build: new, place: new_place, recipe: new_recipe };
    Ok(compare::causes(&store.listings(), old, new, &alignment.old_of)?)
}
