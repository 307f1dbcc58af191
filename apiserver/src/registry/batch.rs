//! The batch group, v1.

pub mod cron_job;
mod cron_schedule;
pub mod job;
