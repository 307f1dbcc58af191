//! What every daemon needs around its own work: flags, logging, metrics, health, client, informers.
