//! Turns OpenMetrics text into Prometheus' text format 0.0.4, in which a counter's TYPE line carries the same name
//! as its samples, and UNIT and EOF lines do not exist.

use std::collections::HashMap;

/// `counters` maps a counter's name in the input (without `_total`) to the name it is to have.
pub(super) fn plain(open_metrics: &str, counters: &HashMap<String, String>) -> String {
    let mut plain = String::with_capacity(open_metrics.len() + 64);
    // The counter whose samples are being read, as (name in samples, wanted name).
    let mut current: Option<(String, &str)> = None;
    for line in open_metrics.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.splitn(3, ' ');
            let (Some(keyword @ ("HELP" | "TYPE")), Some(name), rest) =
                (words.next(), words.next(), words.next())
            else {
                continue;
            };
            let wanted = counters.get(name).map(String::as_str);
            current = wanted.map(|wanted| (format!("{name}_total"), wanted));
            let rest = match (keyword, rest.unwrap_or_default()) {
                ("TYPE", "unknown") => "untyped",
                (_, rest) => rest,
            };
            plain.extend(["# ", keyword, " ", wanted.unwrap_or(name), " ", rest, "\n"]);
            continue;
        }
        match &current {
            Some((sample, wanted)) if line.starts_with(sample.as_str()) => {
                plain.extend([*wanted, &line[sample.len()..], "\n"]);
            }
            _ => plain.extend([line, "\n"]),
        }
    }
    plain
}
