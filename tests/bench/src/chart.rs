//! Draws how many times better than upstream each figure is, on a logarithmic axis, as SVG for the README.
//!
//! The picture has no ground of its own, and all its colours are of middling brightness: it is read on white and on
//! black.

use crate::figures::{Group, Unit};
use crate::report::{Report, Row, digits, times};
use std::fmt::Write;

const WIDTH: f64 = 920.0;
const TOP: f64 = 76.0;
const LINE: f64 = 26.0;
const BAR: f64 = 14.0;
/// Between groups of rows.
const GAP: f64 = 12.0;
const FOOT: f64 = 56.0;
/// The bars begin here.
const LEFT: f64 = 376.0;
/// The longest bar ends here, and its factor is written behind it.
const RIGHT: f64 = 668.0;
const MEASURED: f64 = 824.0;
const UPSTREAM: f64 = 912.0;

const STYLE: &str = "\
text { font: 13px system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif; fill: #6e7681; }
.title { font-size: 17px; font-weight: 600; }
.small { font-size: 11px; }
.end { text-anchor: end; } .middle { text-anchor: middle; }
.factor { font-weight: 600; }
.grid { stroke: #6e7681; stroke-opacity: .25; } .axis { stroke: #6e7681; }
.goal { stroke: #d29922; stroke-width: 2.5; }
.speed { fill: #3b82f6; } .cpu { fill: #14a38b; } .memory { fill: #a371f7; }
";

/// What a figure is about, and how wide that is to write; each has a colour.
const KINDS: [(&str, &str, f64); 3] =
    [("speed", "rate or time", 106.0), ("cpu", "CPU", 56.0), ("memory", "memory", 78.0)];

fn kind(row: &Row) -> &'static str {
    match row.unit {
        Unit::Mib | Unit::Kib => "memory",
        Unit::Percent | Unit::Micros => "cpu",
        Unit::Millis | Unit::Seconds | Unit::PerSecond if row.work.starts_with("CPU") => "cpu",
        Unit::Millis | Unit::Seconds | Unit::PerSecond => "speed",
    }
}

/// A row that has something to be compared with.
struct Bar<'a> {
    row: &'a Row,
    upstream: f64,
    factor: f64,
    goal: f64,
}

/// Where a factor lies. One is upstream, and there every bar begins.
struct Axis {
    low: f64,
    high: f64,
}

impl Axis {
    /// Reaches over all bars and goals, to a power of ten below and to the next tick above.
    fn over(bars: &[Bar<'_>]) -> Axis {
        let numbers = || bars.iter().flat_map(|bar| [bar.factor, bar.goal]);
        let low = numbers().fold(1.0, f64::min);
        let high = numbers().fold(2.0, f64::max);
        let high = ticks(1.0).find(|tick| *tick >= high).unwrap_or(high);
        Axis { low: 10_f64.powf(low.log10().floor()), high }
    }

    fn place(&self, factor: f64) -> f64 {
        let part = (factor / self.low).log10() / (self.high / self.low).log10();
        LEFT + part.clamp(0.0, 1.0) * (RIGHT - LEFT)
    }

    fn ticks(&self) -> impl Iterator<Item = f64> {
        ticks(self.low).take_while(|tick| *tick <= self.high * 1.001)
    }
}

/// 1, 2, 5, 10, 20, 50 and so on, from a power of ten.
fn ticks(from: f64) -> impl Iterator<Item = f64> {
    (0..12).flat_map(move |power| [1.0, 2.0, 5.0].map(|step| step * from * 10_f64.powi(power)))
}

/// The chart of the rows for which there are upstream's figure and a goal.
pub(crate) fn svg(report: &Report) -> String {
    let bars: Vec<Bar<'_>> = report
        .rows
        .iter()
        .filter_map(|row| {
            let (upstream, goal, factor) = (row.upstream?, row.goal?, row.factor()?);
            (row.median > 0.0).then(|| Bar { row, upstream, factor, goal: row.unit.factor(goal, upstream) })
        })
        .collect();
    let axis = Axis::over(&bars);
    let tops = tops(&bars);
    let bottom = tops.last().map_or(TOP, |top| top + LINE);
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">
<title>kube-apiserver: Keelson beside upstream</title>
<style>
{STYLE}</style>"#,
        height = bottom + FOOT
    );
    heading(&mut text);
    for tick in axis.ticks() {
        let (x, class) = (axis.place(tick), if tick == 1.0 { "axis" } else { "grid" });
        let _ = writeln!(
            text,
            r#"<line class="{class}" x1="{x:.1}" x2="{x:.1}" y1="{TOP}" y2="{bottom}"/>
<text class="small middle" x="{x:.1}" y="{}">{tick} ×</text>"#,
            bottom + 16.0
        );
    }
    for (bar, top) in bars.iter().zip(tops) {
        draw(&mut text, bar, &axis, top);
    }
    foot(&mut text, report, bottom + 42.0);
    text.push_str("</svg>\n");
    text
}

/// Where each bar's line begins: what belongs together stands together.
fn tops(bars: &[Bar<'_>]) -> Vec<f64> {
    let part = |bar: &Bar<'_>| match bar.row.group {
        Group::Start | Group::Idle | Group::Peak => 0,
        Group::Large => 2,
        _ => 1,
    };
    let mut y = TOP;
    let mut tops = Vec::new();
    for (index, bar) in bars.iter().enumerate() {
        if index > 0 && part(&bars[index - 1]) != part(bar) {
            y += GAP;
        }
        tops.push(y);
        y += LINE;
    }
    tops
}

fn heading(text: &mut String) {
    let _ = writeln!(
        text,
        r#"<text class="title" x="8" y="24">kube-apiserver: how many times better than upstream 1.36.2</text>
<text class="small" x="8" y="44">logarithmic; where less is better, half of it counts as 2 ×</text>
<text class="small end" x="{MEASURED}" y="{y}">Keelson</text>
<text class="small end" x="{UPSTREAM}" y="{y}">upstream</text>"#,
        y = TOP - 8.0
    );
}

fn draw(text: &mut String, bar: &Bar<'_>, axis: &Axis, y: f64) {
    let (one, end, goal) = (axis.place(1.0), axis.place(bar.factor), axis.place(bar.goal));
    let (from, width) = (one.min(end), (end - one).abs().max(1.0));
    let (top, base) = (y + (LINE - BAR) / 2.0, y + LINE / 2.0 + 4.5);
    let unit = bar.row.unit.symbol();
    let _ = writeln!(
        text,
        r#"<text class="end" x="{label}" y="{base}">{work}</text>
<rect class="{kind}" x="{from:.1}" y="{top}" width="{width:.1}" height="{BAR}" rx="2"/>
<line class="goal" x1="{goal:.1}" x2="{goal:.1}" y1="{above}" y2="{below}"/>
<text class="factor" x="{behind:.1}" y="{base}">{factor}</text>
<text class="end" x="{MEASURED}" y="{base}">{measured} {unit}</text>
<text class="end" x="{UPSTREAM}" y="{base}">{upstream} {unit}</text>"#,
        label = LEFT - 10.0,
        work = escape(&bar.row.work),
        kind = kind(bar.row),
        above = top - 3.0,
        below = top + BAR + 3.0,
        behind = from + width.max(goal - from) + 7.0,
        factor = times(bar.factor),
        measured = digits(bar.row.median),
        upstream = digits(bar.upstream),
    );
}

/// What the colours mean, and what was measured where.
fn foot(text: &mut String, report: &Report, y: f64) {
    let mut x = 8.0;
    for (class, name, width) in KINDS {
        let _ = writeln!(
            text,
            r#"<rect class="{class}" x="{x}" y="{}" width="10" height="10" rx="2"/><text class="small" x="{}" y="{y}">{name}</text>"#,
            y - 9.0,
            x + 15.0
        );
        x += width;
    }
    let _ = writeln!(
        text,
        r#"<line class="goal" x1="{x}" x2="{x}" y1="{}" y2="{}"/><text class="small" x="{}" y="{y}">goal</text>
<text class="small end" x="{UPSTREAM}" y="{y}">median of {} runs, {} cores with the load on them, etcd {}</text>"#,
        y - 11.0,
        y + 2.0,
        x + 8.0,
        report.runs,
        report.cores,
        escape(&report.etcd)
    );
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Load;
    use crate::figures::Figure;
    use crate::report::rows;
    use crate::samples::Samples;

    fn chart(numbers: &[(Figure, f64)]) -> String {
        let mut samples = Samples::default();
        for (figure, number) in numbers {
            samples.add(*figure, *number);
        }
        let rows = rows(&samples, &Samples::default(), &Load::default(), |_| true);
        svg(&Report {
            apiserver: String::new(),
            etcd: "<3.5>".into(),
            cores: 2,
            runs: 5,
            load: Load::default(),
            rows,
        })
    }

    #[test]
    fn bars_are_drawn_of_what_can_be_compared() {
        let svg = chart(&[(Figure::Get, 29_300.0), (Figure::EtcdGets, 21_000.0), (Figure::WatchMemory, 3.0)]);
        assert_eq!(svg.matches(">10 ×<").count(), 2, "a factor and a tick: {svg}");
        assert!(svg.contains("get a pod, 32 clients") && svg.contains("29,300 /s"));
        assert!(!svg.contains("bare etcd") && !svg.contains("one idle watch"));
        assert!(svg.contains("etcd &lt;3.5&gt;"));
    }

    #[test]
    fn equal_steps_are_equal_factors() {
        let axis = Axis { low: 1.0, high: 100.0 };
        assert_eq!([1.0, 10.0, 100.0].map(|factor| axis.place(factor)), [LEFT, (LEFT + RIGHT) / 2.0, RIGHT]);
        assert_eq!(axis.place(1e9), RIGHT);
        assert_eq!(axis.ticks().collect::<Vec<_>>(), [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0]);
    }

    #[test]
    fn the_axis_reaches_below_one_when_something_is_worse() {
        let worse = rows(
            &{
                let mut samples = Samples::default();
                samples.add(Figure::Create, 1147.0 / 3.0);
                samples
            },
            &Samples::default(),
            &Load::default(),
            |_| true,
        );
        let bar = Bar { row: &worse[0], upstream: 1147.0, factor: worse[0].factor().unwrap(), goal: 4.4 };
        let axis = Axis::over(&[bar]);
        assert_eq!((axis.low, axis.high), (0.1, 5.0));
    }
}
