//! A configuration before it has types: nodes that know where they were written.
//!
//! Files, environment and flags are laid over each other here, by dotted key, and only then read as a
//! [`Config`](super::Config). A node that turns out faulty is marked and passed over, so that the next fault can be
//! found.

mod read;
mod yaml;

use super::Origin;

pub(super) use read::Problem;

/// A value and where it was written.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) origin: Origin,
    pub(super) value: Value,
    /// A fault was reported for it: reading passes it over, as if it had not been given.
    broken: bool,
}

#[derive(Debug, Clone)]
pub(super) enum Value {
    Scalar(Scalar),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A scalar as it was written.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Scalar {
    Null,
    /// What YAML takes for something else than text, such as `off`, `1e3` or `0x10`, and how it was written: only who
    /// reads it knows which of the two is meant.
    Typed(Typed, Box<str>),
    /// Text; from flags and the environment always.
    Text(String),
}

/// What YAML takes a scalar for that is not in quotes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Typed {
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
}

#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) key_origin: Origin,
    pub(super) node: Node,
}

/// One step from a node to a child.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Key(String),
    /// Position in the list as written.
    Index(usize),
}

/// A path as people write it: `discovery.static[1].weight`.
pub(super) fn dotted(path: &[Step]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Key(key) if text.is_empty() => text.push_str(key),
            Step::Key(key) => text.extend([".", key]),
            Step::Index(index) => text.extend(["[", &index.to_string(), "]"]),
        }
    }
    text
}

impl Node {
    pub(super) fn new(origin: Origin, value: Value) -> Self {
        Self { origin, value, broken: false }
    }

    /// A configuration in which nothing is said.
    pub(super) fn empty() -> Self {
        Self::new(Origin::Default, Value::Map(Vec::new()))
    }

    /// Puts a scalar in at a dotted key, over whatever was there. Sections that are missing are made.
    pub(super) fn set(&mut self, key: &str, text: String, origin: &Origin) {
        let (first, rest) = key.split_once('.').map_or((key, None), |(first, rest)| (first, Some(rest)));
        if !matches!(self.value, Value::Map(_)) {
            *self = Self::new(origin.clone(), Value::Map(Vec::new()));
        }
        let Value::Map(entries) = &mut self.value else { return };
        let at = entries.iter().position(|entry| entry.key == first).unwrap_or(entries.len());
        if at == entries.len() {
            let node = Self::new(origin.clone(), Value::Map(Vec::new()));
            entries.push(Entry { key: first.to_owned(), key_origin: origin.clone(), node });
        }
        let Some(entry) = entries.get_mut(at) else { return };
        match rest {
            Some(rest) => entry.node.set(rest, text, origin),
            None => entry.node = Self::new(origin.clone(), Value::Scalar(Scalar::Text(text))),
        }
    }

    /// The child at one step, broken or not.
    fn child(&self, step: &Step) -> Option<&Self> {
        match (&self.value, step) {
            (Value::Map(entries), Step::Key(key)) => {
                entries.iter().find(|entry| entry.key == *key).map(|entry| &entry.node)
            }
            (Value::List(nodes), Step::Index(index)) => nodes.get(*index),
            _ => None,
        }
    }

    /// The node at the end of a path.
    pub(super) fn at(&self, path: &[Step]) -> Option<&Self> {
        path.iter().try_fold(self, Self::child)
    }

    /// The node at a dotted key without indexes.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        key.split('.').try_fold(self, |node, part| node.child(&Step::Key(part.to_owned())))
    }

    /// Whether a fault was reported for the value at `key`, or for a section around it.
    pub(super) fn is_broken(&self, key: &str) -> bool {
        let mut node = self;
        for part in key.split('.') {
            match node.child(&Step::Key(part.to_owned())) {
                Some(child) if child.broken => return true,
                Some(child) => node = child,
                None => return false,
            }
        }
        false
    }

    /// Whether a fault was reported for what its own key `name` says.
    pub(super) fn has_broken_key(&self, name: &str) -> bool {
        self.child(&Step::Key(name.to_owned())).is_some_and(|child| child.broken)
    }

    /// Whether a fault was reported for something in the section `key`.
    pub(super) fn has_broken(&self, key: &str) -> bool {
        fn any(node: &Node) -> bool {
            node.broken
                || match &node.value {
                    Value::Scalar(_) => false,
                    Value::List(nodes) => nodes.iter().any(any),
                    Value::Map(entries) => entries.iter().any(|entry| any(&entry.node)),
                }
        }
        self.get(key).is_some_and(any)
    }

    /// Where the value at the end of `path` was given, and the path as people write it; of what was not written, where
    /// that was given which it would be in.
    pub(super) fn trace(&self, path: &[String]) -> (Origin, String) {
        let (mut node, mut steps, mut origin) = (Some(self), Vec::new(), Origin::Default);
        for part in path {
            let is_list = matches!(node.map(|node| &node.value), Some(Value::List(_)));
            let index = part.parse().ok().filter(|_| is_list);
            steps.push(index.map_or_else(|| Step::Key(part.clone()), Step::Index));
            node = node.zip(steps.last()).and_then(|(node, step)| node.child(step));
            origin = node.map_or(origin, |node| node.origin.clone());
        }
        (origin, dotted(&steps))
    }

    /// The elements of the list at `key` that reading did not pass over, with their positions as written.
    pub(super) fn elements(&self, key: &str) -> Vec<(usize, &Self)> {
        self.get(key).map_or_else(Vec::new, Self::in_use)
    }

    /// Its own elements that reading did not pass over, with their positions as written.
    pub(super) fn in_use(&self) -> Vec<(usize, &Self)> {
        match &self.value {
            Value::List(nodes) => nodes.iter().enumerate().filter(|(_, node)| !node.broken).collect(),
            _ => Vec::new(),
        }
    }

    /// Marks the node at `path` as broken. Returns where it was written (the key, if `about_key`), or `None` if there
    /// is no such node or it was marked before.
    pub(super) fn mark(&mut self, path: &[Step], about_key: bool) -> Option<Origin> {
        let Some((step, rest)) = path.split_first() else {
            return (!std::mem::replace(&mut self.broken, true)).then(|| self.origin.clone());
        };
        match (&mut self.value, step) {
            (Value::Map(entries), Step::Key(key)) => {
                let entry = entries.iter_mut().find(|entry| entry.key == *key && !entry.node.broken)?;
                let origin = entry.node.mark(rest, about_key)?;
                Some(if about_key && rest.is_empty() { entry.key_origin.clone() } else { origin })
            }
            (Value::List(nodes), Step::Index(index)) => nodes.get_mut(*index)?.mark(rest, about_key),
            _ => None,
        }
    }
}
