//! `STOPSIGNAL`: the signal that stops a container.

use crate::error::Error;
use crate::text::to_upper;

use super::dispatch::Site;

const SIGNALS: [&str; 35] = [
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL",
    "PIPE", "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP",
    "TTIN", "TTOU", "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ", "RTMIN",
];

/// Sets the image's stop signal.
pub(super) fn dispatch(site: &mut Site<'_, '_>, signal: &str) -> Result<(), Error> {
    let signal = site.expand(signal)?;
    if !is_signal(&signal) {
        return Err(Error::new(format!("invalid signal: {signal}")));
    }
    site.stage.image_mut().config.stop_signal.clone_from(&signal);
    site.commit(format!("STOPSIGNAL {signal}"), false);
    Ok(())
}

fn is_signal(text: &str) -> bool {
    if let Ok(number) = text.parse::<i64>() {
        return number != 0;
    }
    let name = to_upper(text);
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    let real_time = |prefix: &str, last: u32| {
        (1..=last).any(|offset| name.strip_prefix(prefix) == Some(offset.to_string().as_str()))
    };
    SIGNALS.contains(&name) || name == "RTMAX" || real_time("RTMIN+", 15) || real_time("RTMAX-", 14)
}

#[cfg(test)]
mod tests {
    use super::is_signal;

    #[test]
    fn signals_have_names_and_numbers() {
        for text in ["9", "64", "-1", "SIGTERM", "kill", "sigrtmin+3", "RTMAX-14", "RTMAX"] {
            assert!(is_signal(text), "{text}");
        }
        for text in ["0", "", "FOO", "SIG", "RTMIN+16", "RTMAX-15", "RTMIN+03", "9 "] {
            assert!(!is_signal(text), "{text}");
        }
    }
}
