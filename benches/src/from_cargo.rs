//! How a benchmark learns whether `cargo bench` or `cargo test` runs it.

/// The arguments that cargo adds.
#[derive(Debug, clap::Args)]
pub struct FromCargo {
    /// Passed by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

impl FromCargo {
    /// Whether to measure. Prints why not under `cargo test`, which only checks that a benchmark
    /// starts.
    pub fn measures(&self) -> bool {
        if !self.bench {
            println!("nothing to test here; `cargo bench` measures");
        }
        self.bench
    }
}
