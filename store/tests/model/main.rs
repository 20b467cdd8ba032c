//! The store beside a simple model of it: random steps, and after each the same answers from both, whatever end the store comes to.
//!
//! `TIDEMILL_MODEL_SEED` runs one seed again, `TIDEMILL_MODEL_SECONDS` runs new ones for so long.
//!
//! # Layout
//! - `random`: numbers from a seed
//! - `model`: what there should be
//! - `check`: all that a store has, compared with it
//! - `steps`: what is done; `ends`: closing, dying, losing power, and retention

mod check;
mod ends;
mod model;
mod random;
mod steps;

use std::time::{Duration, Instant};

use crate::random::Random;

/// Steps of one seed.
const STEPS: usize = 120;
/// Seeds of the everyday run.
const ROUNDS: u64 = 4;

async fn run(seed: u64, shards: u16) {
    let mut random = Random::new(seed);
    let mut driver = steps::Driver::new(&mut random, shards);
    for _ in 0..STEPS {
        driver.step(&mut random).await;
    }
    check::all(driver.store(), &driver.model).await;
}

/// Says which seed it was if it fails.
struct Told(u64);

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("run it again with TIDEMILL_MODEL_SEED={}", self.0);
        }
    }
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_answers_as_its_model() {
    let seeds = match (variable("TIDEMILL_MODEL_SEED"), variable("TIDEMILL_MODEL_SECONDS")) {
        (Some(seed), _) => seed..seed + 1,
        (None, Some(_)) => random::now()..u64::MAX,
        (None, None) => 0..ROUNDS,
    };
    let seconds = variable("TIDEMILL_MODEL_SECONDS").map(Duration::from_secs);
    let begun = Instant::now();
    let mut rounds = 0;
    for seed in seeds {
        let _told = Told(seed);
        for shards in [1, 3] {
            run(seed, shards).await;
        }
        println!("seed {seed}");
        rounds += 1;
        if seconds.is_some_and(|seconds| begun.elapsed() >= seconds) {
            break;
        }
    }
    println!("{rounds} rounds in {:?}", begun.elapsed());
}
