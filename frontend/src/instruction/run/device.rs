//! The values of `RUN --device`.

use crate::instruction::csv;
use crate::suggest::{Case, suggest};
use kiln_oci::text::parse_bool;

use crate::text::to_lower;

/// A device that a step requests by its CDI name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// The device's name, as `vendor.com/class=name`.
    pub name: String,
    /// `true` if the step fails without the device.
    pub is_required: bool,
}

impl Device {
    /// Parses the value of the flag.
    pub(super) fn parse(value: &str) -> Result<Self, String> {
        let fields =
            csv::fields(value).map_err(|error| format!("failed to parse csv devices: {error}"))?;
        let mut device = Self::default();
        for field in &fields {
            match field.split_once('=') {
                None => device.set_word(field)?,
                Some((key, value)) => device.set_pair(field, &to_lower(key), value)?,
            }
        }
        Ok(device)
    }

    fn set_word(&mut self, field: &str) -> Result<(), String> {
        if to_lower(field) == "required" {
            self.is_required = true;
        } else if self.name.is_empty() {
            field.clone_into(&mut self.name);
        } else {
            return Err(format!("invalid field '{field}' must be a key=value pair"));
        }
        Ok(())
    }

    fn set_pair(&mut self, field: &str, key: &str, value: &str) -> Result<(), String> {
        match key {
            "name" if !self.name.is_empty() => {
                return Err(format!("device name already set to {}", self.name));
            }
            "name" => value.clone_into(&mut self.name),
            "required" => {
                self.is_required =
                    parse_bool(value).ok_or_else(|| format!("invalid value for {key}: {value}"))?;
            }
            // A name contains an equals sign itself.
            _ if self.name.is_empty() => field.clone_into(&mut self.name),
            _ => {
                let message = format!("unexpected key '{key}' in '{field}'");
                return Err(suggest(message, key, ["name", "required"], Case::Sensitive));
            }
        }
        Ok(())
    }
}
