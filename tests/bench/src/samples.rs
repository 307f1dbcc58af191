//! What the runs have measured: one number for each figure and run, of which the median counts.

use crate::figures::{Figure, Unit};
use std::collections::BTreeMap;
use std::time::Duration;

/// Numbers of each figure, in the order of the runs.
#[derive(Debug, Default)]
pub(crate) struct Samples(BTreeMap<Figure, Vec<f64>>);

impl Samples {
    pub(crate) fn add(&mut self, figure: Figure, number: f64) {
        self.0.entry(figure).or_default().push(number);
    }

    /// Adds a time, in the figure's unit.
    pub(crate) fn add_time(&mut self, figure: Figure, time: Duration) {
        let per_second = match figure.spec().unit {
            Unit::Millis => 1e3,
            Unit::Micros => 1e6,
            _ => 1.0,
        };
        self.add(figure, time.as_secs_f64() * per_second);
    }

    /// Adds how many there were in a second.
    pub(crate) fn add_rate(&mut self, figure: Figure, count: u64, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX).max(1);
        self.add(figure, number(count) * 1e9 / number(nanos));
    }

    /// Adds the part of one among `count`.
    pub(crate) fn add_share(&mut self, figure: Figure, whole: Duration, count: u64) {
        self.add_time(figure, whole.div_f64(number(count.max(1))));
    }

    pub(crate) fn of(&self, figure: Figure) -> Option<&[f64]> {
        self.0.get(&figure).map(Vec::as_slice)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Figure, &[f64])> {
        self.0.iter().map(|(figure, numbers)| (*figure, numbers.as_slice()))
    }
}

/// A count as a number to reckon with.
#[expect(clippy::cast_precision_loss, reason = "counts here stay far below 2^53")]
pub(crate) fn number(count: u64) -> f64 {
    count as f64
}

/// The number in the middle; of an even count, the mean of the two in the middle.
pub(crate) fn median(numbers: &[f64]) -> Option<f64> {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    let lower = *sorted.get((sorted.len() - 1) / 2)?;
    Some(f64::midpoint(lower, upper))
}

/// The same of times.
pub(crate) fn median_time(times: &[Duration]) -> Duration {
    let seconds: Vec<f64> = times.iter().map(Duration::as_secs_f64).collect();
    Duration::from_secs_f64(median(&seconds).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_in_the_middle() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[7.0]), Some(7.0));
        assert_eq!(median(&[9.0, 1.0, 5.0]), Some(5.0));
        assert_eq!(median(&[9.0, 1.0, 5.0, 6.0]), Some(5.5));
        let millis = [30, 10, 20].map(Duration::from_millis);
        assert_eq!(median_time(&millis), Duration::from_millis(20));
    }

    #[test]
    fn numbers_are_in_the_figure_s_unit() {
        let mut samples = Samples::default();
        samples.add_rate(Figure::Create, 500, Duration::from_millis(100));
        samples.add_share(Figure::CreateCpu, Duration::from_millis(50), 500);
        samples.add_time(Figure::ListConsistent, Duration::from_millis(22));
        samples.add_time(Figure::Start, Duration::from_millis(300));
        samples.add_time(Figure::Start, Duration::from_millis(400));
        let all: Vec<_> = samples.iter().map(|(figure, numbers)| (figure, numbers.to_vec())).collect();
        assert_eq!(
            all,
            [
                (Figure::Start, vec![0.3, 0.4]),
                (Figure::Create, vec![5000.0]),
                (Figure::CreateCpu, vec![100.0]),
                (Figure::ListConsistent, vec![22.0]),
            ]
        );
    }
}
