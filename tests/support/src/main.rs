//! `fairlead-lab`: engines, load and a no-op service to try Fairlead against.

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Black-box companions of Fairlead.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Fleet(fairlead_lab::fleet::FleetArgs),
    ScrapeCost(fairlead_lab::scrape_cost::ScrapeCostArgs),
    Compare(fairlead_lab::compare::CompareArgs),
    Engine(fairlead_lab::engine::cli::EngineArgs),
    Load(fairlead_lab::load::cli::LoadArgs),
    Noop(fairlead_lab::noop::NoopArgs),
    Demo(fairlead_lab::demo::DemoArgs),
    Bench(fairlead_lab::bench::BenchArgs),
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    // One thread: the lab shares the machine with what it measures.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut out = std::io::stdout();
    runtime.block_on(async {
        match cli.command {
            Command::Engine(arguments) => arguments.run(&mut out).await,
            Command::Fleet(arguments) => arguments.run(&mut out).await,
            Command::ScrapeCost(arguments) => Box::pin(arguments.run(&mut out)).await,
            Command::Compare(arguments) => Box::pin(arguments.run(&mut out)).await,
            Command::Load(arguments) => arguments.run(&mut out).await,
            Command::Noop(arguments) => arguments.run(&mut out).await,
            Command::Bench(arguments) => Box::pin(arguments.run(&mut out)).await,
            Command::Demo(arguments) => Box::pin(arguments.run(&mut out)).await,
        }
    })?;
    out.flush()?;
    Ok(())
}
