//! The `fairlead` program: arguments, configuration, then [`fairlead::app::run`].

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Context as _;
use fairlead::cli::{self, Action, Given, Page};
use fairlead::config::{self, Fault, Loaded, Sources};
use fairlead::domain::hint;
use fairlead::routing::{self, describe};
use fairlead::{app, simulate, telemetry};

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let action = cli::parse(std::env::args_os()).unwrap_or_else(|error| error.exit());
    let done = match action {
        Action::Serve(given) => load(&given, None).map(|loaded| serve(loaded, given)),
        Action::Check(given) => load(&given, None).map(|loaded| check(&loaded)),
        Action::Strategies { name, verbose } => Ok(strategies(name.as_deref(), verbose)),
        Action::Simulate(options) => Ok(simulate::execute(&options, &mut io::stdout().lock()).map_err(Into::into)),
        Action::Docs(Page::Configuration) => Ok(print(&config::docs::page())),
        Action::Docs(Page::Strategies) => Ok(print(&describe::page())),
        Action::Docs(Page::Metrics) => Ok(print(&telemetry::metrics::docs::page())),
    };
    match done {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => complain(&[format!("{error:#}")]),
        Err(faults) => complain(&faults),
    }
}

fn serve(loaded: Loaded, given: Given) -> anyhow::Result<()> {
    let log = telemetry::log::init(&loaded.config.log)?;
    for warning in config::warnings(&loaded.config, config::process_variables()) {
        tracing::warn!("{warning}");
    }
    app::run(loaded, Box::new(move |text| load(&given, Some(text))), log)
}

fn check(loaded: &Loaded) -> anyhow::Result<()> {
    complain(&config::warnings(&loaded.config, config::process_variables()));
    print(&loaded.to_yaml())
}

/// Loads the configuration; from `text` if its file was read already.
fn load(given: &Given, text: Option<String>) -> Result<Loaded, Vec<Fault>> {
    let sources = Sources {
        file: given.file.as_deref(),
        env: &config::process_env,
        flags: &given.flags,
        defaults: given.defaults,
        check: &|config| [app::check_strategies(config), given.complaints(config)].concat(),
    };
    match text {
        None => config::load(&sources),
        Some(text) => config::load_text(&sources, text),
    }
}

fn strategies(name: Option<&str>, verbose: bool) -> anyhow::Result<()> {
    if name.is_none() && !verbose {
        return print(&describe::list());
    }
    let text = describe::explain(name);
    let hint = || hint(name.unwrap_or_default(), routing::names());
    print(&text.with_context(|| format!("there is no strategy \"{}\"; {}", name.unwrap_or_default(), hint()))?)
}

fn print(text: &str) -> anyhow::Result<()> {
    Ok(io::stdout().lock().write_all(text.as_bytes())?)
}

fn complain(faults: &[impl std::fmt::Display]) -> ExitCode {
    let mut err = io::stderr().lock();
    for fault in faults {
        // Nobody is left to tell if standard error is gone.
        writeln!(err, "fairlead: {fault}").ok();
    }
    ExitCode::FAILURE
}
