//! One random program on both.

use crate::differential::Differential;
use crate::program::{KEYS, Program, Step};
use anyhow::{Context, Result};
use std::time::Instant;

fn number(variable: &str, otherwise: u64) -> Result<u64> {
    match std::env::var(variable) {
        Ok(text) => text.parse().with_context(|| format!("{variable} is not a number: {text}")),
        Err(_) => Ok(otherwise),
    }
}

#[tokio::test]
async fn a_random_program_gives_the_same_answers() -> Result<()> {
    let (seed, operations) = (number("KEELSON_SEED", 3)?, number("KEELSON_ETCD_MODEL_OPS", 4000)?);
    let mut both = Differential::start(KEYS).await?;
    let mut program = Program::new(seed);
    let started = Instant::now();
    let mut steps = 0_u64;
    while both.counts.operations < operations {
        let step = program.next(&both.model, both.watches().len());
        steps += 1;
        take(&mut both, &step)
            .await
            .with_context(|| format!("KEELSON_SEED={seed}, step {steps}: {step:?}"))?;
    }
    both.drain().await.with_context(|| format!("KEELSON_SEED={seed}, after step {steps}"))?;
    eprintln!("seed {seed}: {:?} in {:?}", both.counts, started.elapsed());
    Ok(())
}

async fn take(both: &mut Differential, step: &Step) -> Result<()> {
    match step {
        Step::Do(operation) => both.step(operation).await.map(drop),
        Step::Watch { stream, request } => both.watch(*stream, request).await.map(drop),
        Step::Cancel(place) => both.cancel(both.watches()[*place]).await,
        Step::Progress(stream) => both.progress(*stream).await,
        Step::Poll => both.poll(),
        Step::Drain => both.drain().await.map(drop),
    }
}
