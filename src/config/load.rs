//! Reading the configuration: flag over environment over file over default, and every fault at once.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::de::DeserializeOwned;

use super::tree::{Node, Problem, Value, dotted};
use super::{Config, Fault, Form, Origin, SETTINGS, Setting, setting, validate};
use crate::domain::{Complaint, hint};

/// Largest configuration file, in bytes.
pub const CONFIG_BYTES_MAX: u64 = 8 << 20;

/// Everything that a configuration is made of.
#[derive(Clone, Copy)]
pub struct Sources<'a> {
    /// The YAML file that a flag named; without it the environment variable `FAIRLEAD_CONFIG` may name one.
    pub file: Option<&'a Path>,
    /// Looks an environment variable up; an empty value counts as none.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// Flags that were given: dotted key and value.
    pub flags: &'a [(&'static str, String)],
    /// What holds in place of the usual defaults: dotted key and value.
    pub defaults: &'a [(&'static str, &'static str)],
    /// What is wrong with the strategies, which are known elsewhere.
    pub check: &'a dyn Fn(&Config) -> Vec<Complaint>,
}

impl fmt::Debug for Sources<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources").field("file", &self.file).field("flags", &self.flags).finish_non_exhaustive()
    }
}

/// A valid configuration that remembers where its values came from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The values.
    pub config: Config,
    /// The file that was read, if any.
    pub file: Option<PathBuf>,
    tree: Node,
}

impl Loaded {
    /// The effective configuration as YAML; behind each value that is not a default it says where it was given.
    pub fn to_yaml(&self) -> String {
        let mut options = serde_saphyr::SerializerOptions::default();
        // A comment goes behind each value, so each value has to stay on its line.
        options.prefer_block_scalars = false;
        let yaml = serde_saphyr::to_string_with_options(&self.config, options).unwrap_or_default();
        let mut lines: Vec<String> = yaml.lines().map(str::to_owned).collect();
        if let Ok(printed) = Node::parse(&yaml, &Arc::from(Path::new(""))) {
            for setting in SETTINGS {
                let (Some(node), given) = (printed.get(setting.key), self.origin(setting.key)) else { continue };
                let Origin::File { line, .. } = node.origin else { continue };
                let line = usize::try_from(line).ok().and_then(|line| lines.get_mut(line.checked_sub(1)?));
                if let (Some(line), false) = (line, given == Origin::Default) {
                    line.extend(["  # ", &given.to_string()]);
                }
            }
        }
        lines.push(String::new());
        lines.join("\n")
    }

    /// Where the value at a dotted key was given.
    pub fn origin(&self, key: &str) -> Origin {
        self.tree.get(key).map_or(Origin::Default, |node| node.origin.clone())
    }
}

/// Reads, overlays and validates.
///
/// # Errors
/// Every fault that there is, in the order of file lines, then environment and flags.
pub fn load(sources: &Sources<'_>) -> Result<Loaded, Vec<Fault>> {
    // A pipe is welcome here: at the start nothing else waits, and Ctrl-C ends it.
    load_with(sources, |path| {
        let mut text = String::new();
        File::open(path)?.take(CONFIG_BYTES_MAX + 1).read_to_string(&mut text)?;
        let is_within = text.len() as u64 <= CONFIG_BYTES_MAX;
        is_within.then_some(text).ok_or_else(|| io::Error::other(format!("has more than {CONFIG_BYTES_MAX} bytes")))
    })
}

/// [`load`] with the text of the file that was named, which was read already.
///
/// # Errors
/// As [`load`].
pub fn load_text(sources: &Sources<'_>, text: String) -> Result<Loaded, Vec<Fault>> {
    load_with(sources, |_| Ok(text))
}

/// [`load`] with another way to read the file.
pub(super) fn load_with(
    sources: &Sources<'_>,
    read: impl FnOnce(&Path) -> io::Result<String>,
) -> Result<Loaded, Vec<Fault>> {
    let mut faults = Vec::new();
    let named = || (sources.env)("FAIRLEAD_CONFIG").filter(|name| !name.is_empty()).map(PathBuf::from);
    let file = sources.file.map(Path::to_owned).or_else(named);
    let tree = file.as_deref().map_or_else(|| Ok(Node::empty()), |file| parse(file, read(file)));
    let mut tree = tree.unwrap_or_else(|fault| {
        faults.push(fault);
        Node::empty()
    });
    overlay(&mut tree, sources, &mut faults);
    let config: Config = typed(&mut tree, &mut faults);
    faults.extend(validate::faults(&config, &tree, sources.check));
    if faults.is_empty() {
        return Ok(Loaded { config, file, tree });
    }
    faults.sort_by_key(|fault| match &fault.origin {
        Origin::File { line, column, .. } => (0, *line, *column),
        Origin::Default | Origin::Preset => (1, 0, 0),
        Origin::Env(_) => (2, 0, 0),
        Origin::Flag(_) => (3, 0, 0),
    });
    Err(faults)
}

fn parse(file: &Path, text: io::Result<String>) -> Result<Node, Fault> {
    let path: Arc<Path> = Arc::from(file);
    let text = text.map_err(|error| Fault {
        origin: Origin::File { path: Arc::clone(&path), line: 0, column: 0 },
        key: String::new(),
        message: format!("cannot be read: {error}"),
    })?;
    Node::parse(&text, &path)
}

/// Puts the environment, then the flags over the file.
fn overlay(tree: &mut Node, sources: &Sources<'_>, faults: &mut Vec<Fault>) {
    let env = |name: &str| (sources.env)(name).filter(|value| !value.is_empty());
    for setting in SETTINGS {
        let own = env(&setting.env()).map(|value| (setting.env(), value));
        let alias = setting.env_alias().and_then(|name| Some((name.to_owned(), env(name)?)));
        if let (Some((name, value)), Some((other, second))) = (&own, &alias)
            && value != second
        {
            faults.push(Fault {
                origin: Origin::Env(other.clone()),
                key: setting.key.to_owned(),
                message: format!("is \"{second}\", but {name} is \"{value}\"; unset one of the two"),
            });
        }
        if let Some((_, value)) = sources.defaults.iter().find(|(key, _)| *key == setting.key)
            && tree.get(setting.key).is_none()
        {
            tree.set(setting.key, (*value).to_owned(), &Origin::Preset);
        }
        if let Some((name, value)) = own.or(alias) {
            tree.set(setting.key, value, &Origin::Env(name));
        }
        if let Some((_, value)) = sources.flags.iter().find(|(key, _)| *key == setting.key) {
            tree.set(setting.key, value.clone(), &Origin::Flag(format!("--{}", setting.flag())));
        }
    }
}

/// Most faults that are told at once: each costs a reading of the whole.
const FAULTS_MAX: usize = 100;

/// Reads the tree as a value. Each fault marks its node, which is then passed over, and the reading starts again: so all
/// are found, and what is left is the rest with defaults in place of what is broken.
pub(super) fn typed<T: DeserializeOwned + Default>(tree: &mut Node, faults: &mut Vec<Fault>) -> T {
    while faults.len() < FAULTS_MAX {
        let problem = match T::deserialize(tree.reader()) {
            Ok(value) => return value,
            Err(problem) => problem,
        };
        let path = problem.path();
        // What is missing was there, and its fault was told.
        let is_told = |name| tree.at(&path).is_some_and(|node| node.has_broken_key(name));
        if problem.missing.is_some_and(is_told) && tree.mark(&path, false).is_some() {
            continue;
        }
        // Marking fails only for a node that was passed over, which cannot have been read; stop rather than turn round.
        let Some(origin) = tree.mark(&path, problem.about_key).filter(|_| !path.is_empty()) else {
            let origin = tree.origin.clone();
            faults.push(Fault { origin, key: dotted(&path), message: problem.message });
            break;
        };
        let key = dotted(&path);
        let message = explain(&key, tree.at(&path), problem);
        faults.push(Fault { origin, key, message });
    }
    T::default()
}

/// Says of a scalar what was written and what to write instead; serde speaks of types.
fn explain(key: &str, node: Option<&Node>, problem: Problem) -> String {
    let text = match node.map(|node| &node.value) {
        Some(Value::Scalar(scalar)) if !problem.about_key => scalar.text().map(str::to_owned),
        _ => None,
    };
    match (text, setting(key)) {
        (Some(text), Some(Setting { form: Form::Choice(words), .. })) => {
            format!("\"{text}\" is not one of the choices; {}", hint(&text, words.iter().copied()))
        }
        (Some(text), Some(setting)) => format!("\"{text}\" does not fit; {}", setting.form.advice()),
        (Some(text), None) if !problem.message.contains(&text) => {
            format!("\"{text}\" does not fit: {}", problem.message)
        }
        (None, Some(setting)) => format!("needs one value; {}", setting.form.advice()),
        _ => problem.message,
    }
}

/// The environment of this process. It is read here and nowhere else.
#[expect(clippy::disallowed_methods, reason = "the one place where the environment is read")]
pub fn process_env(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
