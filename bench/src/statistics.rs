//! Medians, percentiles, and how figures are written.

use std::time::Duration;

/// Latencies in microseconds, in ascending order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Latencies(Vec<u32>);

impl Latencies {
    pub(crate) fn new(mut microseconds: Vec<u32>) -> Self {
        microseconds.sort_unstable();
        Self(microseconds)
    }

    /// How many milliseconds so many of a thousand took at most; 0 where there are none.
    pub(crate) fn quantile_ms(&self, per_mille: usize) -> f64 {
        let rank = (per_mille * self.0.len()).div_ceil(1_000).max(1);
        self.0.get(rank - 1).map_or(0.0, |latency| f64::from(*latency) / 1_000.0)
    }

    pub(crate) fn max_ms(&self) -> f64 {
        self.quantile_ms(1_000)
    }
}

pub(crate) fn microseconds(latency: Duration) -> u32 {
    u32::try_from(latency.as_micros()).unwrap_or(u32::MAX)
}

/// The middle one, or the mean of the two in the middle; 0 where there are none.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.into_iter().collect();
    values.sort_unstable_by(f64::total_cmp);
    match (values.len(), values.len() / 2) {
        (0, _) => 0.0,
        (count, middle) if count % 2 == 1 => values[middle],
        (_, middle) => f64::midpoint(values[middle - 1], values[middle]),
    }
}

pub(crate) fn per_second(count: usize, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

/// How many times `base` goes into `value`; 0 where there is nothing to compare with.
pub(crate) fn ratio(value: f64, base: f64) -> f64 {
    if base > 0.0 { value / base } else { 0.0 }
}

/// Rounded to the digits that a run repeats.
pub(crate) fn rounded(value: f64, digits: i32) -> f64 {
    let unit = 10_f64.powi(digits);
    (value * unit).round() / unit
}

/// `12,345`: as people read a count.
pub(crate) fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_latencies_that_occurred() {
        let latencies = Latencies::new((1..=100).rev().map(|ms| ms * 1_000).collect());

        for (per_mille, ms) in [(0, 1.0), (500, 50.0), (990, 99.0), (999, 100.0), (1_000, 100.0)] {
            assert_eq!(latencies.quantile_ms(per_mille).to_bits(), f64::to_bits(ms), "{per_mille}");
        }
        assert_eq!(Latencies::default().max_ms().to_bits(), 0);
    }

    #[test]
    fn the_median_of_an_even_number_is_between_two() {
        assert_eq!(median([3.0, 1.0, 2.0]).to_bits(), 2_f64.to_bits());
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]).to_bits(), 2.5_f64.to_bits());
        assert_eq!(median([]).to_bits(), 0);
    }

    #[test]
    fn counts_are_grouped_by_thousands() {
        for (value, text) in
            [(0.0, "0"), (999.4, "999"), (1_000.0, "1,000"), (1_234_567.0, "1,234,567")]
        {
            assert_eq!(grouped(value), text);
        }
    }
}
