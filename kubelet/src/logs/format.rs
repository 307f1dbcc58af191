//! One line of a CRI log.

/// A line taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// RFC 3339 with nanoseconds, as the runtime wrote it.
    pub time: &'a str,
    /// Whether it came from stderr.
    pub stderr: bool,
    /// Whether the runtime cut a longer line here.
    pub partial: bool,
    /// What the container wrote, without the newline.
    pub text: &'a [u8],
}

/// Takes a line apart; `None` when it isn't one.
#[must_use]
pub fn parse(line: &[u8]) -> Option<Record<'_>> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let mut parts = line.splitn(4, |byte| *byte == b' ');
    let time = std::str::from_utf8(parts.next()?).ok()?;
    let stderr = match parts.next()? {
        b"stdout" => false,
        b"stderr" => true,
        _ => return None,
    };
    // Tags are separated by colons; only the first has a meaning so far.
    let partial = match parts.next()?.split(|byte| *byte == b':').next()? {
        b"P" => true,
        b"F" => false,
        _ => return None,
    };
    if time.is_empty() {
        return None;
    }
    Some(Record { time, stderr, partial, text: parts.next().unwrap_or_default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let time = "2026-01-02T03:04:05.000000006Z";
        let record = |stderr, partial, text: &'static str| {
            Some(Record { time, stderr, partial, text: text.as_bytes() })
        };
        for (line, expected) in [
            (format!("{time} stdout F hello world\n"), record(false, false, "hello world")),
            (format!("{time} stderr P half"), record(true, true, "half")),
            (format!("{time} stdout F:later x\n"), record(false, false, "x")),
            (format!("{time} stdout F \n"), record(false, false, "")),
            (format!("{time} stdout F\n"), record(false, false, "")),
            (format!("{time} stdmid F x\n"), None),
            (format!("{time} stdout Q x\n"), None),
            (format!("{time}\n"), None),
            (String::new(), None),
        ] {
            assert_eq!(parse(line.as_bytes()), expected, "{line}");
        }
        assert!(parse(b"\xff\xfe stdout F x").is_none());
    }
}
