//! `fairlead picker`: the flags and defaults of the reference endpoint picker, so that our image can stand in for its.

use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};

use clap::{Arg, ArgAction, ArgGroup, ArgMatches, Command};

use crate::config::Config;
use crate::domain::Complaint;

use super::Given;

/// What holds unless it is said otherwise, by whatever means; listening at all addresses, as they are written.
macro_rules! defaults {
    ($all:literal) => {
        &[
            ("listen.ext_proc", concat!($all, ":9002")),
            ("listen.tls", "required"),
            ("listen.health", concat!($all, ":9003")),
            ("listen.admin", concat!($all, ":9090")),
            // A gateway that asks us wants an endpoint, whatever the path.
            ("routing.unknown_paths", "route"),
            ("shutdown.delay", "5s"),
            ("log.format", "json"),
        ]
    };
}

/// How a machine writes "all addresses".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Family {
    all: &'static str,
    defaults: &'static [(&'static str, &'static str)],
}

/// IPv6, and IPv4 at the same socket.
const BOTH: Family = Family { all: "[::]", defaults: defaults!("[::]") };
/// IPv4 alone.
const IPV4: Family = Family { all: "0.0.0.0", defaults: defaults!("0.0.0.0") };

impl Family {
    /// What this machine has, found out by a socket of each kind: probes of an IPv6 cluster come by IPv6, and not every
    /// node has it or lets one socket take both.
    fn of_this_machine() -> Self {
        let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0));
        let port = listener.as_ref().ok().and_then(|listener| listener.local_addr().ok()).map(|address| address.port());
        // Without IPv4 there is nothing to fall back to.
        let ipv4 = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).is_ok();
        let takes = |port| !ipv4 || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok();
        if port.is_some_and(takes) { BOTH } else { IPV4 }
    }
}

/// What a flag of the reference picker becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    /// The value of a setting, as it is.
    Value(&'static str),
    /// The port of a setting that is an address; all addresses are listened at.
    Port(&'static str),
    /// A switch: what a setting becomes when it is on, and when it is off.
    Switch(&'static str, [&'static str; 2]),
    /// The encoder of log lines.
    Encoder,
    /// From this level on, the log tells more.
    Verbosity,
    /// Part of the name of the pool.
    Pool,
    /// Nothing, for it is always so here.
    Nothing,
}

struct Flag {
    name: &'static str,
    meaning: Meaning,
    help: &'static str,
}

const fn flag(name: &'static str, meaning: Meaning, help: &'static str) -> Flag {
    Flag { name, meaning, help }
}

const FLAGS: &[Flag] = &[
    flag("pool-name", Meaning::Pool, "InferencePool whose pods are endpoints"),
    flag("pool-namespace", Meaning::Pool, "Its namespace, or that of the pods; else our own"),
    flag("pool-group", Meaning::Value("discovery.kubernetes.pool_group"), "Its API group"),
    flag(
        "endpoint-selector",
        Meaning::Value("discovery.kubernetes.local_pool.selector"),
        "Labels of the pods, where there is no InferencePool",
    ),
    flag(
        "endpoint-target-ports",
        Meaning::Value("discovery.kubernetes.local_pool.ports"),
        "Ports of such pods, with commas between them; else 8000",
    ),
    flag("grpc-port", Meaning::Port("listen.ext_proc"), "Port of ext_proc"),
    flag("grpc-health-port", Meaning::Port("listen.health"), "Port of gRPC health alone, in plaintext"),
    flag("metrics-port", Meaning::Port("listen.admin"), "Port of /metrics and the other admin pages"),
    flag("secure-serving", Meaning::Switch("listen.tls", ["required", "off"]), "Whether ext_proc is spoken over TLS"),
    flag("cert-path", Meaning::Value("listen.certificate"), "Folder with tls.crt and tls.key; else self-signed"),
    flag("zap-encoder", Meaning::Encoder, "Shape of log lines"),
    flag("v", Meaning::Verbosity, "Verbosity: 4 and above is `debug`"),
    flag("health-checking", Meaning::Nothing, "Taken and without effect: health is answered at the ext_proc port too"),
    flag("enable-cert-reload", Meaning::Nothing, "Taken and without effect: certificates are always read again"),
    flag("metrics-endpoint-auth", Meaning::Nothing, "Taken and without effect: /metrics is open"),
];

/// The flags that say whose pods are endpoints: one of them.
const WHOSE: [&str; 2] = ["pool-name", "endpoint-selector"];

/// Adds the flags to a command.
pub(super) fn with_flags(command: Command) -> Command {
    command.args(FLAGS.iter().map(argument)).group(ArgGroup::new("whose").args(WHOSE))
}

fn argument(flag: &'static Flag) -> Arg {
    let heading = "Flags of the reference picker";
    let argument = Arg::new(flag.name).long(flag.name).help_heading(heading).help(flag.help).action(ArgAction::Set);
    // They would mean nothing.
    let argument = if ["pool-namespace", "endpoint-target-ports"].contains(&flag.name) {
        argument.requires("whose")
    } else {
        argument
    };
    match flag.meaning {
        Meaning::Switch(..) | Meaning::Nothing => {
            argument.value_parser(["true", "false"]).num_args(0..=1).require_equals(true).default_missing_value("true")
        }
        Meaning::Encoder => argument.value_parser(["json", "console"]),
        Meaning::Port(_) => argument.value_name("PORT").value_parser(clap::value_parser!(u16)),
        Meaning::Verbosity => argument.short('v').value_name("NUMBER").value_parser(clap::value_parser!(u8)),
        Meaning::Value(_) | Meaning::Pool => argument,
    }
}

/// The pool, as `namespace/name`, without a namespace in our own; or the namespace of the pods.
fn pool(matches: &ArgMatches) -> Option<(&'static str, String)> {
    let text = |flag| matches.get_one::<String>(flag);
    match (text("pool-name"), text("pool-namespace")) {
        (Some(name), None) => Some(("discovery.kubernetes.pools", name.clone())),
        (Some(name), Some(namespace)) => Some(("discovery.kubernetes.pools", format!("{namespace}/{name}"))),
        (None, Some(namespace)) => Some(("discovery.kubernetes.local_pool.namespace", namespace.clone())),
        (None, None) => None,
    }
}

/// What was given, in our own words. Our own flags come first, so they win.
pub(super) fn given(matches: &ArgMatches) -> Given {
    given_on(Family::of_this_machine(), matches)
}

fn given_on(family: Family, matches: &ArgMatches) -> Given {
    let mut given = super::given(matches);
    (given.defaults, given.is_picker) = (family.defaults, true);
    given.flags.extend(pool(matches));
    given.flags.extend(FLAGS.iter().filter_map(|flag| setting(flag, family, matches)));
    given
}

/// A picker without endpoints to pick from was forgotten to be told of them.
pub(super) fn complaints(config: &Config) -> Vec<Complaint> {
    let message = "nothing says where endpoints are; name an InferencePool with --pool-name, or the labels of pods with \
                   --endpoint-selector";
    if config.discovery.has_source() { Vec::new() } else { vec![Complaint::at(["discovery"], message)] }
}

fn setting(flag: &Flag, family: Family, matches: &ArgMatches) -> Option<(&'static str, String)> {
    let text = || matches.get_one::<String>(flag.name).map(String::as_str);
    let (key, value) = match flag.meaning {
        Meaning::Value(key) => (key, text()?.to_owned()),
        Meaning::Port(key) => (key, format!("{}:{}", family.all, matches.get_one::<u16>(flag.name)?)),
        Meaning::Switch(key, [on, off]) => (key, if text()? == "true" { on } else { off }.to_owned()),
        Meaning::Encoder => ("log.format", if text()? == "json" { "json" } else { "pretty" }.to_owned()),
        Meaning::Verbosity => {
            let is_detailed = *matches.get_one::<u8>(flag.name)? >= 4;
            ("log.filter", if is_detailed { "fairlead=debug,info" } else { "info" }.to_owned())
        }
        Meaning::Pool | Meaning::Nothing => return None,
    };
    Some((key, value))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::super::{Action, parse};
    use crate::config::KubernetesDiscovery;

    use super::*;

    fn picked(line: &str) -> Given {
        match parse(line.split(' ').map(OsString::from)).unwrap() {
            Action::Serve(given) => given,
            other => panic!("{other:?}"),
        }
    }

    fn value<'a>(given: &'a Given, key: &str) -> Option<&'a str> {
        given.flags.iter().find(|(known, _)| *known == key).map(|(_, value)| value.as_str())
    }

    #[test]
    fn arguments_of_the_reference_manifests_need_no_subcommand() {
        let given = picked(
            "fairlead --pool-name p --pool-namespace ns --v=4 --zap-encoder json --grpc-port 9002 --grpc-health-port=9003 --metrics-port 9090 \
             --secure-serving=false --health-checking",
        );
        for (key, expected) in [
            ("discovery.kubernetes.pools", "ns/p"),
            ("listen.tls", "off"),
            ("log.format", "json"),
            ("log.filter", "fairlead=debug,info"),
        ] {
            assert_eq!(value(&given, key), Some(expected), "{key}");
        }
    }

    #[test]
    fn pods_without_a_pool_are_named_by_labels_ports_and_namespace() {
        let given = picked("fairlead --endpoint-selector app=x --endpoint-target-ports 8000,8001 --pool-namespace ns");
        for (key, expected) in [("namespace", "ns"), ("selector", "app=x"), ("ports", "8000,8001")] {
            let key = format!("discovery.kubernetes.local_pool.{key}");
            assert_eq!(value(&given, &key), Some(expected), "{key}");
        }
        assert_eq!(value(&given, "discovery.kubernetes.pools"), None);
    }

    #[test]
    fn flags_that_would_mean_nothing_are_refused() {
        for line in [
            "fairlead --pool-namespace ns",
            "fairlead --endpoint-target-ports 8000",
            "fairlead --pool-name p --endpoint-selector app=x",
        ] {
            let fault = parse(line.split(' ').map(OsString::from)).unwrap_err().to_string();
            assert!(fault.contains("--pool-name"), "{fault}");
        }
    }

    #[test]
    fn a_picker_needs_to_be_told_where_endpoints_are() {
        let given = picked("fairlead picker --grpc-port 9002");
        let mut config = Config::default();
        let faults = given.complaints(&config);
        assert!(matches!(faults.as_slice(), [fault] if fault.message.contains("--pool-name")), "{faults:?}");
        assert!(Given::default().complaints(&config).is_empty(), "`serve` may start without");
        config.discovery.kubernetes = Some(KubernetesDiscovery::default());
        assert!(given.complaints(&config).is_empty());
    }

    #[test]
    fn all_addresses_are_listened_at_by_default_and_with_a_flag() {
        let line = "picker --grpc-port 1 --grpc-health-port 2 --metrics-port 3";
        let matches = with_flags(super::super::with_settings(Command::new("picker"))).get_matches_from(line.split(' '));
        for (family, all) in [(BOTH, "[::]"), (IPV4, "0.0.0.0")] {
            let given = given_on(family, &matches);
            for (key, flag, default) in
                [("listen.ext_proc", 1, 9002), ("listen.health", 2, 9003), ("listen.admin", 3, 9090)]
            {
                assert_eq!(value(&given, key), Some(format!("{all}:{flag}").as_str()));
                let text = format!("{all}:{default}");
                assert!(given.defaults.contains(&(key, text.as_str())), "{key}");
            }
        }
    }

    #[test]
    fn what_a_machine_has_can_be_reached_by_ipv4() {
        let listener = TcpListener::bind(format!("{}:0", Family::of_this_machine().all)).unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok());
    }

    #[test]
    fn our_own_flags_work_beside_them_and_win() {
        let given = picked("fairlead picker --grpc-port 1 --listen-ext-proc [::]:2 -v 1 --secure-serving");
        assert_eq!(value(&given, "listen.ext_proc"), Some("[::]:2"));
        assert_eq!(value(&given, "listen.tls"), Some("required"));
        assert_eq!(value(&given, "log.filter"), Some("info"));
    }

    #[test]
    fn defaults_and_flags_name_settings_that_exist() {
        let flags = FLAGS.iter().filter_map(|flag| match flag.meaning {
            Meaning::Value(key) | Meaning::Port(key) | Meaning::Switch(key, _) => Some(key),
            Meaning::Pool => Some("discovery.kubernetes.pools"),
            Meaning::Encoder | Meaning::Verbosity | Meaning::Nothing => None,
        });
        for key in BOTH.defaults.iter().map(|(key, _)| *key).chain(flags) {
            assert!(crate::config::setting(key).is_some(), "{key}");
        }
    }
}
