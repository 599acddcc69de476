//! Chosen places, for people and programs.

use std::fmt;

use kuafu_topology::Matrix;
use kuafu_topology::pops::{Design, Method};
use serde::Serialize;

use crate::out::{columns, ms, or_dash};

/// A share of pairs from which on renting helps more than a few.
const MANY: f64 = 0.1;

/// What is printed.
#[derive(Debug, Serialize)]
pub(super) struct Answer {
    /// How the places were found: `exact` or `greedy`.
    method: &'static str,
    /// The same in words.
    how: String,
    max_relays: u8,
    /// Pairs that count.
    pairs: usize,
    /// Whether they are players and servers.
    of_players: bool,
    direct_mean_ms: f64,
    mean_gain_ms: f64,
    share_gaining_10_ms: f64,
    /// Of the places whose price is known.
    usd_per_month: Option<f64>,
    places: Vec<Place>,
    verdict: String,
}

/// A chosen place; its figures are with those before it.
#[derive(Debug, Serialize)]
struct Place {
    place: String,
    mean_gain_ms: f64,
    added_ms: f64,
    share_gaining_10_ms: f64,
    usd_per_month: Option<f64>,
    /// Its price by what it adds.
    usd_per_month_per_ms: Option<f64>,
}

impl Answer {
    /// The answer to a design of a matrix, with the prices that are known.
    pub(super) fn new(
        matrix: &Matrix,
        design: &Design,
        max_relays: u8,
        of_players: bool,
        prices: &[(usize, f64)],
    ) -> Self {
        let mut before = 0.0;
        let mut places = Vec::new();
        for chosen in &design.chosen {
            let price = prices
                .iter()
                .find(|price| price.0 == chosen.place)
                .map(|price| price.1);
            let added_ms = chosen.mean_gain_ms - before;
            before = chosen.mean_gain_ms;
            places.push(Place {
                place: matrix.names()[chosen.place].clone(),
                mean_gain_ms: chosen.mean_gain_ms,
                added_ms,
                share_gaining_10_ms: chosen.felt,
                usd_per_month: price,
                usd_per_month_per_ms: price.filter(|_| added_ms > 0.0).map(|price| price / added_ms),
            });
        }
        let known: Vec<f64> = places.iter().filter_map(|place| place.usd_per_month).collect();
        let mut answer = Self {
            method: match design.method {
                Method::Exact { .. } => "exact",
                Method::Greedy { .. } => "greedy",
            },
            how: how(design.method),
            max_relays,
            pairs: design.pairs,
            of_players,
            direct_mean_ms: design.direct_ms,
            mean_gain_ms: before,
            share_gaining_10_ms: design.chosen.last().map_or(0.0, |last| last.felt),
            usd_per_month: (!known.is_empty()).then(|| known.iter().sum()),
            places,
            verdict: String::new(),
        };
        answer.verdict = answer.verdict();
        answer
    }

    fn who(&self) -> &'static str {
        if self.of_players { "players" } else { "pairs" }
    }

    /// Would it help?
    fn verdict(&self) -> String {
        let (who, share) = (self.who(), self.share_gaining_10_ms);
        let figures = format!(
            "{} of the {who} gain 10 ms or more, and the mean round trip falls by {} ms, from {} to {} ms",
            percent(share),
            ms(self.mean_gain_ms),
            ms(self.direct_mean_ms),
            ms(self.direct_mean_ms - self.mean_gain_ms),
        );
        let price = self.usd_per_month.map(|usd| {
            let unknown = self
                .places
                .iter()
                .filter(|place| place.usd_per_month.is_none())
                .count();
            let unknown = if unknown == 0 {
                String::new()
            } else {
                format!(", {unknown} without a price")
            };
            format!(", for {usd:.2} US dollars a month{unknown}")
        });
        let price = price.unwrap_or_default();
        if share >= MANY {
            format!("It would help: {figures}{price}.")
        } else if share > 0.0 {
            format!("It would help few: {figures}{price}.")
        } else {
            format!("It would not help: {figures}{price}.")
        }
    }
}

fn how(method: Method) -> String {
    match method {
        Method::Exact { subsets } => format!("exactly, by comparing all {subsets} sets of places"),
        Method::Greedy { exchanges, settled } => format!(
            "greedily, one place at a time, then {exchanges} exchanged, {}",
            if settled {
                "until no exchange of one place gained (not compared: all sets)"
            } else {
                "as many as time allowed (more may gain)"
            }
        ),
    }
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let two = |value: Option<f64>| or_dash(value.map(|value| format!("{value:.2}")));
        let row = |(number, place): (usize, &Place)| {
            [
                (number + 1).to_string(),
                place.place.clone(),
                format!("{:.2}", place.mean_gain_ms),
                format!("+{:.2}", place.added_ms),
                percent(place.share_gaining_10_ms),
                two(place.usd_per_month),
                two(place.usd_per_month_per_ms),
            ]
        };
        let headings = [
            "",
            "PLACE",
            "MEAN GAIN MS",
            "ADDED MS",
            "GAIN ≥ 10 MS",
            "USD/MONTH",
            "USD PER MS",
        ];
        f.write_str(&columns(headings, self.places.iter().enumerate().map(row)))?;
        let pairs = if self.of_players {
            "pairs of players' places and servers, by players"
        } else {
            "pairs"
        };
        writeln!(
            f,
            "\nChosen {}; over {} {pairs}, paths with at most {} of the places.",
            self.how, self.pairs, self.max_relays
        )?;
        writeln!(f, "{}", self.verdict)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU8;

    use kuafu_topology::pops::{Demand, Plan, design};

    use super::*;

    const ROUND_TRIPS: &str =
        ",Osaka,Taipei,Lima,Rome\nOsaka,,40,300,250\nTaipei,40,,200,255\nLima,300,200,,180\nRome,250,255,,\n";

    fn answer(demand: Option<Demand>, count: usize, prices: &[(usize, f64)]) -> Answer {
        let matrix = Matrix::parse(ROUND_TRIPS).unwrap();
        let plan = Plan {
            count,
            relay_us: 1_000,
            max_relays: NonZeroU8::MIN,
        };
        let of_players = demand.is_some();
        let demand = demand.unwrap_or_else(|| Demand::of_all(&matrix));
        Answer::new(
            &matrix,
            &design(&matrix, &demand, plan, |_| ()),
            1,
            of_players,
            prices,
        )
    }

    #[test]
    fn places_with_what_they_bring_and_cost() {
        insta::assert_snapshot!(answer(None, 2, &[(1, 40.0)]));
    }

    #[test]
    fn players_whom_nothing_helps() {
        let demand = Demand {
            sources: vec![(0, 1200.0), (1, 30.0)],
            targets: vec![3],
        };
        insta::assert_snapshot!(answer(Some(demand), 1, &[]));
    }

    #[test]
    fn a_program_finds_these_keys() {
        let answer = serde_json::to_value(answer(None, 2, &[(1, 40.0)])).unwrap();
        assert_eq!(answer["places"][0]["place"], "Taipei");
        assert_eq!(answer["method"], "exact");
        for key in [
            "pairs",
            "direct_mean_ms",
            "mean_gain_ms",
            "share_gaining_10_ms",
            "verdict",
        ] {
            assert!(!answer[key].is_null(), "{key}");
        }
    }
}
