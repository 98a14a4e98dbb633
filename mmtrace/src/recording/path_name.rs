//! Paths by their names, in JSON.

use std::borrow::Cow;

use mmtrace_common::Path;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

/// A path that serde writes and reads by its name.
///
/// [`Path`] belongs to the crate that the kernel programs share, which knows nothing of serde.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PathName(pub Path);

impl Serialize for PathName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.name())
    }
}

impl<'de> Deserialize<'de> for PathName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = Cow::<str>::deserialize(deserializer)?;
        Path::ALL
            .into_iter()
            .find(|path| path.name() == name)
            .map(Self)
            .ok_or_else(|| D::Error::custom(format_args!("unknown path {name:?}")))
    }
}

/// For `#[serde(with)]` on a [`Path`].
pub(super) mod one {
    use super::*;

    pub(in super::super) fn serialize<S: Serializer>(
        path: &Path,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        PathName(*path).serialize(serializer)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Path, D::Error> {
        PathName::deserialize(deserializer).map(|name| name.0)
    }
}

/// For `#[serde(with)]` on a list of [`Path`]s.
pub(super) mod many {
    use super::*;

    pub(in super::super) fn serialize<S: Serializer>(
        paths: &[Path],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(paths.iter().map(|&path| PathName(path)))
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<Path>, D::Error> {
        let names = Vec::<PathName>::deserialize(deserializer)?;
        Ok(names.into_iter().map(|name| name.0).collect())
    }
}
