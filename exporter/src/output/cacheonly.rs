//! `type=cacheonly`: no output. The results stay in the cache.

use super::keys::{Checked, Keys};
use super::{Export, Exporter, Output, OutputForm, OutputKind};
use crate::error::Result;
use crate::export::ExportContext;

#[derive(Debug)]
struct CacheOnly;

/// Reads the keys of `type=cacheonly`.
#[expect(clippy::unnecessary_wraps, reason = "the signature of all parsers")]
pub(super) fn parse(_keys: &mut Keys) -> Checked<Output> {
    Ok(Output::new(CacheOnly))
}

impl Exporter for CacheOnly {
    fn form(&self) -> OutputForm {
        OutputForm::of(OutputKind::Nothing)
    }

    fn write(&self, _: &mut Export<'_>, _: &mut ExportContext<'_>) -> Result<()> {
        Ok(())
    }
}
