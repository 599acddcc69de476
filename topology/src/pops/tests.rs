//! Against the definition, on small matrices.

use proptest::prelude::*;

use super::*;

fn matrix(cells: &[Vec<Option<u16>>]) -> Matrix {
    let names: Vec<String> = (0..cells.len()).map(|place| format!("p{place}")).collect();
    let mut text = format!(",{}\n", names.join(","));
    for (name, row) in names.iter().zip(cells) {
        let cells = row
            .iter()
            .map(|cell| cell.map(|ms| ms.to_string()).unwrap_or_default());
        text += &format!("{name},{}\n", cells.collect::<Vec<_>>().join(","));
    }
    Matrix::parse(&text).unwrap()
}

fn plan(count: usize, max_relays: u8) -> Plan {
    Plan {
        count,
        relay_us: 1_000,
        max_relays: NonZeroU8::new(max_relays).unwrap(),
    }
}

/// The cheapest way on from `at` over at most so many of the places that are left, every one of them tried.
fn cheapest(matrix: &Matrix, at: usize, to: usize, places: &[usize], relays: u8) -> f64 {
    let leg = |from, to| matrix.get(from, to).unwrap_or(f64::INFINITY);
    let mut best = leg(at, to);
    for &relay in places
        .iter()
        .filter(|&&relay| relays > 0 && relay != to && relay != at)
    {
        let left: Vec<usize> = places.iter().copied().filter(|&place| place != relay).collect();
        best = best.min(leg(at, relay) + 1.0 + cheapest(matrix, relay, to, &left, relays - 1));
    }
    best
}

/// The mean gain and the share that gains 10 ms, by the specification as it reads.
fn gain(matrix: &Matrix, demand: &Demand, places: &[usize], relays: u8) -> (f64, f64) {
    let (mut gain, mut felt, mut weights) = (0.0, 0.0, 0.0);
    for &(from, weight) in &demand.sources {
        for &to in demand.targets.iter().filter(|&&to| to != from) {
            let Some(direct) = matrix.get(from, to) else {
                continue;
            };
            let allowed: Vec<usize> = places.iter().copied().filter(|&place| place != from).collect();
            let saved = (direct - cheapest(matrix, from, to, &allowed, relays)).max(0.0);
            gain += weight * saved;
            felt += if saved >= 10.0 { weight } else { 0.0 };
            weights += weight;
        }
    }
    (gain / weights, felt / weights)
}

fn sets(n: usize, count: usize) -> Vec<Vec<usize>> {
    let of_bits = |bits: u32| (0..n).filter(|place| bits >> place & 1 == 1).collect::<Vec<_>>();
    (0..1_u32 << n)
        .map(of_bits)
        .filter(|set| set.len() == count)
        .collect()
}

fn small() -> impl Strategy<Value = (Matrix, Demand)> {
    (2_usize..8).prop_flat_map(|n| {
        let cell = prop_oneof![1 => Just(None), 5 => (1_u16..200).prop_map(Some)];
        let cells = prop::collection::vec(prop::collection::vec(cell, n), n);
        let sources = prop::collection::vec((0..n, (0_u8..4).prop_map(f64::from)), 1..n + 1);
        let targets = prop::collection::vec(0..n, 1..n + 1);
        (cells, sources, targets).prop_map(|(cells, mut sources, mut targets)| {
            sources.sort_by_key(|source| source.0);
            sources.dedup_by_key(|source| source.0);
            targets.sort_unstable();
            targets.dedup();
            (matrix(&cells), Demand { sources, targets })
        })
    })
}

proptest! {
    #[test]
    fn the_answer_is_the_best_of_all_sets((matrix, demand) in small(), count in 1_usize..5, relays in 1_u8..4) {
        let count = count.min(matrix.names().len());
        let design = design(&matrix, &demand, plan(count, relays), |_| ());
        let best = sets(matrix.names().len(), count)
            .iter()
            .map(|set| gain(&matrix, &demand, set, relays).0)
            .fold(f64::NAN, f64::max);
        if best.is_nan() {
            prop_assert!(design.chosen.is_empty());
        } else {
            prop_assert!((design.chosen[count - 1].mean_gain_ms - best).abs() < 1e-9);
        }
        let mut before = Vec::new();
        for chosen in &design.chosen {
            before.push(chosen.place);
            let (mean, felt) = gain(&matrix, &demand, &before, relays);
            prop_assert!((chosen.mean_gain_ms - mean).abs() < 1e-9);
            prop_assert!((chosen.felt - felt).abs() < 1e-9);
        }
    }

    #[test]
    fn exchanged_sets_gain_by_no_exchange((matrix, demand) in small(), count in 1_usize..5, relays in 1_u8..4) {
        let problem = Problem::new(&matrix, &demand, plan(count, relays));
        let count = count.min(problem.places());
        let (set, _) = approach(&problem, count, &mut |_| ());
        let reached = Field::new(&problem, &set).gain();
        for at in 0..count {
            for place in (0..problem.places()).filter(|place| !set.contains(place)) {
                let mut other = set.clone();
                other[at] = place;
                prop_assert!(Field::new(&problem, &other).gain() <= reached);
            }
        }
    }

    #[test]
    fn what_a_place_adds_is_what_it_adds((matrix, demand) in small(), relays in 1_u8..4) {
        let problem = Problem::new(&matrix, &demand, plan(1, relays));
        for set in sets(problem.places(), 2.min(problem.places())) {
            let field = Field::new(&problem, &set);
            for place in 0..problem.places() {
                let with = [set.as_slice(), &[place]].concat();
                let added = Field::new(&problem, &with).gain() - field.gain();
                prop_assert_eq!(field.added_by(place), added);
            }
        }
    }
}

#[test]
fn all_sets_of_twelve_places_are_compared() {
    let cells: Vec<Vec<Option<u16>>> = (0..242).map(|_| vec![Some(1); 242]).collect();
    let sets = |n: usize, count, relays| {
        let cells: Vec<_> = cells[..n].iter().map(|row| row[..n].to_vec()).collect();
        let matrix = matrix(&cells);
        subsets(
            &Problem::new(&matrix, &Demand::of_all(&matrix), plan(count, relays)),
            count,
        )
    };
    for count in 1..=12 {
        assert!(sets(12, count, 3).is_some_and(|sets| sets <= 924), "{count}");
    }
    assert_eq!((sets(242, 1, 1), sets(242, 2, 1)), (Some(242), None));
}

#[test]
fn lists_are_read_and_what_is_wrong_is_named_with_its_place() {
    let matrix = Matrix::parse(",Paris,Rome\nParis,,1\nRome,1,\n").unwrap();
    let read = |text| list(&matrix, PLAYERS, text).map_err(|error| error.to_string());
    assert_eq!(
        read("\u{feff}place,players\n Rome , 2.5\nParis,0\n"),
        Ok(vec![(1, 2.5), (0, 0.0)])
    );
    let cases = [
        ("", "line 1: found \"\"; the first line must be \"place,players\""),
        ("city,players\nRome,1\n", "found \"city,players\""),
        (
            "place,players\nRome,1\nPariss,2\n",
            "line 3, column 1: \"Pariss\" is no place of the matrix; did you mean \"Paris\"?",
        ),
        (
            "place,players\nTokyo,1\n",
            "line 2, column 1: \"Tokyo\" is no place of the matrix",
        ),
        (
            "place,players\nRome,1\nRome,1\n",
            "line 3, column 1: \"Rome\" is in line 2 already",
        ),
        (
            "place,players\nRome,many\n",
            "line 2, column 2 (players): \"many\" is no number of at least 0",
        ),
        ("place,players\nRome,-1\n", "\"-1\" is no number"),
        ("place,players\nRome,NaN\n", "\"NaN\" is no number"),
        ("place,players\nRome\n", "line: 2"),
    ];
    for (text, expected) in cases {
        let message = read(text).unwrap_err();
        assert!(message.contains(expected), "{message:?} lacks {expected:?}");
    }
}
