//! The figures as rows of a table, beside upstream's from the same kind of machine.

use serde::Serialize;
use std::fmt::Write;
use std::time::Duration;

/// One figure.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    work: String,
    unit: &'static str,
    keelson: f64,
    /// kube-apiserver 1.36.2 over etcd 3.5.16 on a quiet machine of two cores.
    upstream: f64,
    /// Whether more is better.
    more: bool,
}

impl Row {
    fn new(work: &str, unit: &'static str, keelson: f64, upstream: f64, more: bool) -> Row {
        Row { work: work.to_owned(), unit, keelson, upstream, more }
    }

    pub(crate) fn seconds(work: &str, time: Duration, upstream: f64) -> Row {
        Row::new(work, "s", time.as_secs_f64(), upstream, false)
    }

    pub(crate) fn millis(work: &str, time: Duration, upstream: f64) -> Row {
        Row::new(work, "ms", time.as_secs_f64() * 1e3, upstream, false)
    }

    pub(crate) fn micros(work: &str, time: Duration, upstream: f64) -> Row {
        Row::new(work, "µs", time.as_secs_f64() * 1e6, upstream, false)
    }

    pub(crate) fn rate(work: &str, per_second: f64, upstream: f64) -> Row {
        Row::new(work, "/s", per_second, upstream, true)
    }

    pub(crate) fn mib(work: &str, mib: f64, upstream: f64) -> Row {
        Row::new(work, "MiB", mib, upstream, false)
    }

    pub(crate) fn percent(work: &str, percent: f64, upstream: f64) -> Row {
        Row::new(work, "%", percent, upstream, false)
    }

    /// How many times better than upstream.
    fn factor(&self) -> f64 {
        let (good, bad) =
            if self.more { (self.keelson, self.upstream) } else { (self.upstream, self.keelson) };
        good / bad.max(f64::MIN_POSITIVE)
    }
}

/// The rows as text.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{:<48} {:>14} {:>14} {:>8}", "work", "Keelson", "upstream", "better");
    for row in rows {
        let value = |number: f64| format!("{} {}", figure(number), row.unit);
        let factor = if row.keelson > 0.0 { format!("{:.1} x", row.factor()) } else { "-".to_owned() };
        let _ = writeln!(
            text,
            "{:<48} {:>14} {:>14} {factor:>8}",
            row.work,
            value(row.keelson),
            value(row.upstream)
        );
    }
    text
}

/// Three figures that count, no more.
fn figure(number: f64) -> String {
    match number {
        n if n >= 100.0 => format!("{n:.0}"),
        n if n >= 10.0 => format!("{n:.1}"),
        n => format!("{n:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_say_what_is_better() {
        let faster = Row::seconds("start", Duration::from_millis(170), 1.7);
        assert!((faster.factor() - 10.0).abs() < 0.01);
        let more = Row::rate("gets", 2930.0 * 2.0, 2930.0);
        assert!((more.factor() - 2.0).abs() < 0.01);
        assert!(table(&[faster, more]).contains("10.0 x"));
    }
}
