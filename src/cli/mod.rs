//! The command line: what can be asked of the program, and its flags, which come from the table of settings.

mod picker;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use crate::config::{Config, Form, SETTINGS, Setting, docs};
use crate::domain::Complaint;
use crate::simulate;

/// What the program was asked to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Serve until told to stop.
    Serve(Given),
    /// Validate and print the effective configuration.
    Check(Given),
    /// List the strategies, or say all there is to say of one or of all.
    Strategies {
        /// The one that was named.
        name: Option<String>,
        /// Say all.
        verbose: bool,
    },
    /// Simulate a fleet.
    Simulate(Box<simulate::Options>),
    /// Print a reference page.
    Docs(Page),
}

/// Where a configuration is to come from, apart from the environment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Given {
    /// The file that was named.
    pub file: Option<PathBuf>,
    /// Flags that were given: dotted key and value, as text. The first of a key holds.
    pub flags: Vec<(&'static str, String)>,
    /// What holds in place of the usual defaults, by dotted key.
    pub defaults: &'static [(&'static str, &'static str)],
    /// Whether it is to be an endpoint picker.
    pub is_picker: bool,
}

impl Given {
    /// What is wrong with a configuration in view of what was asked for.
    pub fn complaints(&self, config: &Config) -> Vec<Complaint> {
        if self.is_picker { picker::complaints(config) } else { Vec::new() }
    }
}

/// A reference page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Page {
    /// Every key, flag and environment variable.
    Configuration,
    /// Every metric.
    Metrics,
    /// Every strategy.
    Strategies,
}

/// Reads the command line.
///
/// # Errors
/// What clap has to say: a usage error, or the text of `--help` and `--version`. Call [`clap::Error::exit`] on it.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Action, clap::Error> {
    let matches = command().try_get_matches_from(with_subcommand(args.into_iter().collect()))?;
    Ok(match matches.subcommand() {
        Some(("serve", matches)) => Action::Serve(given(matches)),
        Some(("picker", matches)) => Action::Serve(picker::given(matches)),
        Some(("check", matches)) => Action::Check(given(matches)),
        Some(("simulate", matches)) => Action::Simulate(Box::new(simulate::read(matches)?)),
        Some(("docs", matches)) => Action::Docs(match matches.get_one::<String>("page").map(String::as_str) {
            Some("metrics") => Page::Metrics,
            Some("strategies") => Page::Strategies,
            _ => Page::Configuration,
        }),
        Some((_, matches)) => {
            let name = matches.get_one::<String>("name").cloned();
            Action::Strategies { name, verbose: matches.get_flag("verbose") }
        }
        None => Action::Strategies { name: None, verbose: false },
    })
}

/// Manifests of the reference endpoint picker name no subcommand, for it has none.
fn with_subcommand(mut args: Vec<OsString>) -> Vec<OsString> {
    let first = args.get(1).and_then(|first| first.to_str()).unwrap_or_default();
    if first.starts_with('-') && !["-h", "--help", "-V", "--version"].contains(&first) {
        args.insert(1, "picker".into());
    }
    args
}

fn given(matches: &ArgMatches) -> Given {
    let value = |setting: &'static Setting| Some((setting.key, matches.get_one::<String>(setting.key)?.clone()));
    let file = matches.get_one::<PathBuf>("config").cloned();
    Given { file, flags: SETTINGS.iter().filter_map(value).collect(), ..Given::default() }
}

fn command() -> Command {
    let serve = Command::new("serve").about("Serve ext_proc until SIGTERM or SIGINT").long_about(
        "Serve ext_proc until SIGTERM or SIGINT.\n\nEvery key of the configuration file has a flag and an environment \
             variable; a flag beats the environment, which beats the file, which beats the default. Endpoints are \
             lists, so they are written in the file or in a discovery file.",
    );
    let picker = Command::new("picker")
        .about("Serve as the endpoint picker of an InferencePool, with the reference picker's flags and defaults")
        .long_about(
            "Serve as the endpoint picker of an InferencePool. The same as `serve`, but with the ports of the reference \
             picker, over TLS, and with its flags, which may also be given without `picker` before them. Every flag of \
             `serve` is taken too.",
        );
    let check = Command::new("check").about("Validate the configuration and print what would be in effect").long_about(
        "Validate the configuration and print what would be in effect, as YAML that says where each value was given. \
         With faults: all of them on standard error, each with its place, and exit code 1. Takes the same sources as \
         `serve`, the environment included.",
    );
    let page = Arg::new("page")
        .required(true)
        .value_parser(PossibleValuesParser::new(["configuration", "metrics", "strategies"]))
        .help("Which page");
    let name = Arg::new("name").value_name("NAME").help("Say all there is to say of this one, by its name or an alias");
    let verbose = Arg::new("verbose").long("verbose").short('v').action(ArgAction::SetTrue).help("Say it of all");
    let strategies = Command::new("strategies")
        .about("List the routing strategies, or explain them")
        .long_about(
            "List the routing strategies with a line each. With a name, or with --verbose: what it is for, its formula, \
             what it reads, what happens when something is missing, its parameters and their defaults, where it comes \
             from.",
        )
        .arg(name)
        .arg(verbose);
    Command::new("fairlead")
        .about("An LLM inference router behind Envoy: picks the engine that will answer soonest")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(with_settings(serve))
        .subcommand(picker::with_flags(with_settings(picker)))
        .subcommand(with_settings(check))
        .subcommand(strategies)
        .subcommand(simulate::command())
        .subcommand(Command::new("docs").about("Print a reference page as Markdown").arg(page))
}

fn with_settings(command: Command) -> Command {
    let config = Arg::new("config")
        .long("config")
        .short('c')
        .value_name("FILE")
        .value_parser(value_parser!(PathBuf))
        .help("Configuration file, YAML [env: FAIRLEAD_CONFIG]");
    command.arg(config).args(SETTINGS.iter().map(argument))
}

fn argument(setting: &'static Setting) -> Arg {
    let section = setting.key.split('.').next().unwrap_or_default();
    let mut notes = vec![setting.help.to_owned()];
    if let Form::Choice(words) = setting.form {
        notes.push(format!("[choices: {}]", words.join(", ")));
    }
    notes.extend(docs::default_text(setting).map(|text| format!("[default: {text}]")));
    notes.push(format!("[env: {}]", setting.env()));
    notes.extend(setting.env_alias().map(|name| format!("[env: {name}]")));
    let argument = Arg::new(setting.key)
        .long(setting.flag())
        .value_name(setting.form.placeholder())
        .help_heading(format!("Section `{section}`"))
        .help(notes.join(" "));
    if setting.form == Form::Bool {
        return argument.num_args(0..=1).require_equals(true).default_missing_value("true");
    }
    argument
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Action, clap::Error> {
        parse(line.split(' ').map(OsString::from))
    }

    #[test]
    fn the_command_is_well_formed() {
        command().debug_assert();
    }

    #[test]
    fn flags_are_given_by_their_dotted_key() {
        let line =
            "fairlead serve -c f.yaml --listen-ext-proc unix:x.sock --destination-metadata=false --envoy-mode-override";
        let flags = vec![
            ("listen.ext_proc", "unix:x.sock".to_owned()),
            ("destination.metadata", "false".to_owned()),
            ("envoy.mode_override", "true".to_owned()),
        ];
        assert_eq!(
            parsed(line).unwrap(),
            Action::Serve(Given { file: Some(PathBuf::from("f.yaml")), flags, ..Given::default() })
        );
    }

    #[test]
    fn help_names_every_flag_and_variable() {
        let help = parsed("fairlead serve --help").unwrap_err().to_string();
        for setting in SETTINGS {
            assert!(
                help.contains(&format!("--{}", setting.flag())) && help.contains(&setting.env()),
                "{}",
                setting.key
            );
        }
    }

    #[test]
    fn strategies_are_listed_or_explained() {
        let strategies = |name: Option<&str>, verbose| Action::Strategies { name: name.map(str::to_owned), verbose };
        assert_eq!(parsed("fairlead strategies").unwrap(), strategies(None, false));
        assert_eq!(parsed("fairlead strategies random").unwrap(), strategies(Some("random"), false));
        assert_eq!(parsed("fairlead strategies --verbose").unwrap(), strategies(None, true));
        assert_eq!(parsed("fairlead docs strategies").unwrap(), Action::Docs(Page::Strategies));
    }

    #[test]
    fn an_unknown_flag_is_a_usage_error() {
        assert_eq!(parsed("fairlead serve --listen-extproc x").unwrap_err().exit_code(), 2);
        assert_eq!(parsed("fairlead check --version").unwrap_err().exit_code(), 2);
        assert_eq!(parsed("fairlead --version").unwrap_err().to_string(), "fairlead 0.1.0\n");
    }
}
