//! SIGKILL at random moments.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::services::Tidemill;

/// How often a hub is killed, and when.
#[derive(Clone, Copy, Debug)]
pub struct Kills {
    /// Kills while it works.
    pub count: u32,
    /// How long after it was seen to work, at most.
    pub working_max: Duration,
    /// How many of them are followed by another one while it starts, from 0 to 1.
    pub starting: f64,
    /// How long after it was started, at most.
    pub starting_max: Duration,
}

/// What there was beside [`Kills::count`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Killed {
    /// Kills while it started.
    pub starting: u32,
    /// The slowest start.
    pub start_max: Duration,
}

impl Kills {
    /// Kills a hub again and again, each time once it was seen to work since it was last started, which is what `works` waits
    /// for. In the end it is ready, and may not have worked yet.
    ///
    /// # Panics
    /// When it does not start any more.
    pub async fn run(self, hub: &mut Tidemill, seed: u64, works: impl AsyncFn()) -> Killed {
        let mut random = StdRng::seed_from_u64(seed);
        let mut killed = Killed::default();
        for _ in 0..self.count {
            works().await;
            sleep(&mut random, self.working_max).await;
            hub.kill();
            if random.random_bool(self.starting) {
                hub.spawn();
                sleep(&mut random, self.starting_max).await;
                hub.kill();
                killed.starting += 1;
            }
            let began = Instant::now();
            hub.start_again().await;
            killed.start_max = killed.start_max.max(began.elapsed());
        }
        killed
    }
}

async fn sleep(random: &mut StdRng, max: Duration) {
    tokio::time::sleep(random.random_range(Duration::ZERO..max)).await;
}
