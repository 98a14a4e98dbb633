//! The totals of a recording, path by path.

use std::{fmt, ops::Index};

use mmtrace_common::Path;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, Visitor},
    ser::SerializeMap,
};

use super::{Measured, Measures, Row, path_name::PathName};

/// The sums of all rows of each path. Every path is listed, so a null here says that the run could
/// not measure it, and a 0 that there was none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals([Measures; Path::ALL.len()]);

impl Totals {
    /// Adds up `rows`. What is not in `measured` is null.
    #[must_use]
    pub fn of(rows: &[Row], measured: &Measured) -> Self {
        let mut totals = Self(Path::ALL.map(|path| Measures::zero(measured.on(path))));
        for row in rows {
            totals.0[row.path as usize].add(&row.measures);
        }
        totals
    }

    /// Each path with its sums, in the order of [`Path::ALL`].
    pub fn iter(&self) -> impl Iterator<Item = (Path, &Measures)> {
        Path::ALL.into_iter().zip(&self.0)
    }

    /// The sums over all paths; a measure is null when it is null on every path.
    #[must_use]
    pub fn all_paths(&self) -> Measures {
        let mut sum = Measures::default();
        for measures in &self.0 {
            sum.add(measures);
        }
        sum
    }
}

impl Index<Path> for Totals {
    type Output = Measures;

    fn index(&self, path: Path) -> &Measures {
        &self.0[path as usize]
    }
}

impl Serialize for Totals {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(Path::ALL.len()))?;
        for (path, measures) in self.iter() {
            map.serialize_entry(path.name(), measures)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Totals {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TotalsVisitor;

        impl<'de> Visitor<'de> for TotalsVisitor {
            type Value = Totals;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object of paths, each with its measures")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Totals, A::Error> {
                let mut totals = Totals::default();
                while let Some((PathName(path), measures)) = map.next_entry()? {
                    totals.0[path as usize] = measures;
                }
                Ok(totals)
            }
        }

        deserializer.deserialize_map(TotalsVisitor)
    }
}
