//! Seeds for the values that [`super::fields`] reads: a value of one type, or null for none.

use std::borrow::Cow;
use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// A string or null.
#[derive(Clone, Copy)]
pub(super) struct Text;
/// A boolean or null.
#[derive(Clone, Copy)]
pub(super) struct Flag;
/// A whole number (also written `16.0`, which engines take) or null.
#[derive(Clone, Copy)]
pub(super) struct Whole;
/// The first of some members of an object, by a seed of its own. Null has none, nor has a list
/// (`SGLang` takes a list of `sampling_params` for a batch).
pub(super) struct Member<S>(pub(super) &'static [&'static str], pub(super) S);

macro_rules! seed {
    ($seed:ty, $value:ty, $what:literal, { $($visits:tt)* }) => {
        impl<'a> DeserializeSeed<'a> for $seed {
            type Value = Option<$value>;

            fn deserialize<D: Deserializer<'a>>(self, json: D) -> Result<Self::Value, D::Error> {
                json.deserialize_any(self)
            }
        }

        impl<'a> Visitor<'a> for $seed {
            type Value = Option<$value>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str($what)
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(None)
            }

            $($visits)*
        }
    };
}

seed!(Text, Cow<'a, str>, "a string", {
    fn visit_borrowed_str<E>(self, value: &'a str) -> Result<Self::Value, E> {
        Ok(Some(Cow::Borrowed(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
        Ok(Some(Cow::Owned(value.to_owned())))
    }
});

seed!(Flag, bool, "true or false", {
    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(Some(value))
    }
});

seed!(Whole, i128, "a whole number", {
    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(Some(i128::from(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(Some(i128::from(value)))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Self::Value, E> {
        if value.fract() == 0.0 {
            return Ok(Some(value as i128));
        }
        Err(E::invalid_type(de::Unexpected::Float(value), &self))
    }
});

impl<'a, T, S> DeserializeSeed<'a> for Member<S>
where
    S: DeserializeSeed<'a, Value = Option<T>> + Copy,
{
    type Value = Option<T>;

    fn deserialize<D: Deserializer<'a>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'a, T, S> Visitor<'a> for Member<S>
where
    S: DeserializeSeed<'a, Value = Option<T>> + Copy,
{
    type Value = Option<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(None)
    }

    fn visit_map<M: MapAccess<'a>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        let mut found = None;
        while let Some(key) = map.next_key::<Cow<'_, str>>()? {
            if self.0.contains(&key.as_ref()) {
                found = map.next_value_seed(self.1)?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}
