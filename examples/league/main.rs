//! `fairlead simulate` with AIBrix's `prefix-cache` among the strategies, for the tables in
//! `docs/choosing-a-strategy.md`. It takes the same options:
//!
//! ```sh
//! cargo run --release --example league -- --workload conversation --strategy prefix-cache,least-request
//! ```

mod aibrix;

use std::ffi::OsString;

use fairlead::cli::{Action, parse};
use fairlead::simulate::{self, Chooser};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words = ["fairlead".into(), "simulate".into()].into_iter().chain(std::env::args_os().skip(1));
    let Action::Simulate(options) = parse(words.collect::<Vec<OsString>>()).unwrap_or_else(|error| error.exit()) else {
        return Ok(());
    };
    if options.other.is_some() {
        return Ok(simulate::execute(&options, &mut std::io::stdout())?);
    }
    let mut sweep = simulate::sweep(&options)?;
    sweep.choosers.insert(0, Chooser::Contender { name: "(AIBrix prefix-cache)", build: aibrix::PrefixCache::build });
    simulate::report_on(&sweep, &options, &mut std::io::stdout())?;
    Ok(())
}
