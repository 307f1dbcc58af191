//! The figures as a table, beside upstream's, and as JSON.

use crate::args::Load;
use crate::figures::{Figure, Group, Unit};
use crate::samples::{Samples, median};
use serde::{Deserialize, Serialize};
use std::fmt::Write;

/// What one call of this program has measured.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) apiserver: String,
    pub(crate) etcd: String,
    pub(crate) cores: usize,
    pub(crate) runs: u32,
    pub(crate) load: Load,
    pub(crate) rows: Vec<Row>,
}

/// One figure.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) figure: Figure,
    pub(crate) group: Group,
    pub(crate) work: String,
    pub(crate) unit: Unit,
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    pub(crate) upstream: Option<f64>,
    pub(crate) ceiling: Option<f64>,
    /// What a server that does next to nothing takes on this machine.
    #[serde(default)]
    pub(crate) floor: Option<f64>,
    pub(crate) goal: Option<f64>,
    /// Whether the median reaches the goal.
    pub(crate) reached: Option<bool>,
    /// What each run measured.
    pub(crate) runs: Vec<f64>,
}

impl Row {
    fn new(figure: Figure, runs: &[f64], floor: Option<&[f64]>, load: &Load) -> Option<Row> {
        let spec = figure.spec();
        let median = median(runs)?;
        let work = describe(spec.work, load);
        // Upstream was measured under the default load, and no other may be compared with it.
        let alike = work == describe(spec.work, &Load::default());
        let goal = spec.goal.filter(|_| alike);
        Some(Row {
            figure,
            group: spec.group,
            work,
            unit: spec.unit,
            median,
            min: runs.iter().copied().fold(f64::INFINITY, f64::min),
            max: runs.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            upstream: spec.upstream.filter(|_| alike),
            ceiling: spec.ceiling.filter(|_| alike),
            floor: floor.and_then(crate::samples::median),
            goal,
            reached: goal.map(|goal| spec.unit.factor(median, goal) >= 1.0),
            runs: runs.to_vec(),
        })
    }

    /// How many times better than upstream.
    pub(crate) fn factor(&self) -> Option<f64> {
        Some(self.unit.factor(self.median, self.upstream?))
    }

    fn cells(&self) -> [String; 9] {
        let with_unit = |number| format!("{} {}", digits(number), self.unit.symbol());
        let known = |number: Option<f64>| number.map(digits).unwrap_or_default();
        let spread = match self.runs.len() {
            1 => String::new(),
            _ => format!("{} – {}", digits(self.min), digits(self.max)),
        };
        [
            self.work.clone(),
            with_unit(self.median),
            spread,
            known(self.upstream),
            self.factor().map(times).unwrap_or_default(),
            known(self.ceiling),
            known(self.floor),
            known(self.goal),
            self.reached.map(|reached| if reached { "yes" } else { "no" }).unwrap_or_default().to_owned(),
        ]
    }
}

/// Puts the load's parameters into a row's text.
fn describe(work: &str, load: &Load) -> String {
    [
        ("{pods}", load.pods),
        ("{clients}", load.clients),
        ("{watchers}", load.watchers),
        ("{patches}", load.patches),
        ("{watches}", load.watches),
        ("{large_pods}", load.large_pods),
    ]
    .into_iter()
    .fold(work.to_owned(), |text, (name, number)| text.replace(name, &digits(f64::from(number))))
}

/// Three figures that count and no more, or all before the point; thousands set apart.
pub(crate) fn digits(number: f64) -> String {
    if number.fract() == 0.0 || number >= 99.95 {
        let whole = format!("{number:.0}");
        let groups: Vec<&str> =
            whole.as_bytes().rchunks(3).rev().filter_map(|group| std::str::from_utf8(group).ok()).collect();
        return groups.join(",");
    }
    if number >= 9.995 { format!("{number:.1}") } else { format!("{number:.2}") }
}

/// A factor as text.
pub(crate) fn times(factor: f64) -> String {
    match factor {
        f if f >= 9.95 => format!("{f:.0} ×"),
        f if f >= 0.95 => format!("{f:.1} ×"),
        f => format!("{f:.2} ×"),
    }
}

const HEADINGS: [&str; 9] =
    ["work", "measured", "least – most", "upstream", "better", "ceiling", "floor here", "goal", "reached"];
/// Stands in the table only if there is one.
const FLOOR: usize = 6;

/// The rows of the groups that are wanted.
pub(crate) fn rows(
    samples: &Samples,
    floor: &Samples,
    load: &Load,
    wanted: impl Fn(Group) -> bool,
) -> Vec<Row> {
    samples
        .iter()
        .filter(|(figure, _)| wanted(figure.spec().group))
        .filter_map(|(figure, numbers)| Row::new(figure, numbers, floor.of(figure), load))
        .collect()
}

impl Report {
    /// The figures as a Markdown table that is a table on a terminal too.
    pub(crate) fn table(&self) -> String {
        let mut lines = vec![HEADINGS.map(str::to_owned)];
        lines.extend(self.rows.iter().map(Row::cells));
        let width =
            |column: usize| lines.iter().map(|cells| cells[column].chars().count()).max().unwrap_or(0);
        let widths: [usize; 9] = std::array::from_fn(width);
        let has_floor = self.rows.iter().any(|row| row.floor.is_some());
        let shown = |column: usize| column != FLOOR || has_floor;
        let mut text = String::new();
        for (number, cells) in lines.iter().enumerate() {
            for (column, (cell, width)) in cells.iter().zip(widths).enumerate().filter(|(c, _)| shown(*c)) {
                let space = " ".repeat(width - cell.chars().count());
                // Words to the left, numbers to the right.
                let _ = if column == 0 {
                    write!(text, "| {cell}{space} ")
                } else {
                    write!(text, "| {space}{cell} ")
                };
            }
            text.push_str("|\n");
            if number == 0 {
                for (column, width) in widths.into_iter().enumerate().filter(|(c, _)| shown(*c)) {
                    let line = "-".repeat(width);
                    let _ = if column == 0 { write!(text, "|-{line}-") } else { write!(text, "|-{line}:") };
                }
                text.push_str("|\n");
            }
        }
        text
    }

    /// What the table does not say.
    pub(crate) fn notes(&self) -> String {
        let (apiserver, etcd, cores, runs) = (&self.apiserver, &self.etcd, self.cores, self.runs);
        format!("{apiserver} over etcd {etcd} on {cores} cores, median of {runs}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn report() -> Report {
        let mut samples = Samples::default();
        for millis in [300, 170, 200] {
            samples.add_time(Figure::Start, Duration::from_millis(millis));
        }
        samples.add_rate(Figure::Get, 1_234_567, Duration::from_secs(100));
        samples.add(Figure::LargeGet, 9000.0);
        samples.add(Figure::WatchMemory, 3.456);
        let load = Load { large_pods: 1500, ..Load::default() };
        let rows = rows(&samples, &Samples::default(), &load, |group| group != Group::Watches);
        Report { apiserver: "kube-apiserver".into(), etcd: "3.5.16".into(), cores: 2, runs: 3, load, rows }
    }

    #[test]
    fn rows_have_median_spread_and_comparison() {
        let rows = report().rows;
        let figures: Vec<Figure> = rows.iter().map(|row| row.figure).collect();
        assert_eq!(figures, [Figure::Start, Figure::Get, Figure::LargeGet]);
        let start = &rows[0];
        assert_eq!((start.median, start.min, start.max), (0.2, 0.17, 0.3));
        assert_eq!(start.runs, [0.3, 0.17, 0.2]);
        assert!((start.factor().unwrap() - 8.5).abs() < 1e-9);
        // Less is better of a time, more of a rate.
        assert_eq!((start.reached, rows[1].reached), (Some(true), Some(false)));
    }

    #[test]
    fn another_load_is_compared_with_nothing() {
        let row = &report().rows[2];
        assert_eq!(row.work, "get each of 1,500 pods, 32 clients");
        assert_eq!((row.factor(), row.goal, row.reached), (None, None, None));
    }

    #[test]
    fn the_table_is_aligned() {
        let table = report().table();
        let expected = [
            "| work                               |  measured | least – most | upstream | better | ceiling |   goal | reached |",
            "|------------------------------------|----------:|-------------:|---------:|-------:|--------:|-------:|--------:|",
            "| start to /readyz                   |    0.20 s |  0.17 – 0.30 |     1.70 |  8.5 × |         |   0.30 |     yes |",
            "| get a pod, 32 clients              | 12,346 /s |              |    2,930 |  4.2 × |  40,000 | 25,000 |      no |",
            "| get each of 1,500 pods, 32 clients |  9,000 /s |              |          |        |         |        |         |",
        ];
        assert_eq!(table.lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_floor_has_a_column_of_its_own() {
        let (mut samples, mut floor) = (Samples::default(), Samples::default());
        samples.add(Figure::GetCpu, 50.0);
        floor.add(Figure::GetCpu, 20.0);
        floor.add(Figure::GetCpu, 30.0);
        let load = Load::default();
        let report = Report { rows: rows(&samples, &floor, &load, |_| true), ..report() };
        assert_eq!(report.rows[0].floor, Some(25.0));
        let table = report.table();
        assert!(table.lines().next().unwrap().contains("| floor here |"), "{table}");
    }

    #[test]
    fn json_comes_back_as_it_was() {
        let report = report();
        let back: Report = serde_json::from_str(&serde_json::to_string(&report).unwrap()).unwrap();
        assert_eq!(back.table(), report.table());
    }

    #[test]
    fn three_digits_count() {
        for (number, text) in [
            (0.0, "0"),
            (0.126, "0.13"),
            (4.5, "4.50"),
            (17.0, "17"),
            (17.345, "17.3"),
            (667.4, "667"),
            (70_000.0, "70,000"),
            (1_234_567.8, "1,234,568"),
        ] {
            assert_eq!(digits(number), text);
        }
    }
}
