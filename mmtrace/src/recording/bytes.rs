//! Names and arguments in JSON: they are bytes, JSON strings are Unicode.
//!
//! Text that is UTF-8 is written as it is. Otherwise each invalid sequence becomes U+FFFD in the
//! string, and a second key, the first one's name with `_bytes`, has all the bytes in hexadecimal.

use std::{
    ffi::{OsStr, OsString},
    fmt::Write as _,
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

fn to_hex(text: &OsStr) -> String {
    let mut hex = String::with_capacity(2 * text.len());
    for byte in text.as_bytes() {
        write!(hex, "{byte:02x}").expect("writing to a String cannot fail");
    }
    hex
}

fn from_hex(hex: &str) -> Option<OsString> {
    let digit = |byte: u8| (byte as char).to_digit(16);
    let bytes: Option<Vec<u8>> = hex
        .as_bytes()
        .chunks(2)
        .map(|pair| match *pair {
            [high, low] => u8::try_from(digit(high)? << 4 | digit(low)?).ok(),
            _ => None,
        })
        .collect();
    bytes.map(OsString::from_vec)
}

/// The bytes behind `text`: those that `hex` gives, when it is there.
fn decode<E: Error>(text: String, hex: Option<String>) -> Result<OsString, E> {
    let Some(hex) = hex else {
        return Ok(text.into());
    };
    let bytes =
        from_hex(&hex).ok_or_else(|| E::custom(format_args!("{hex:?} is not hexadecimal")))?;
    if bytes.to_string_lossy() == text {
        Ok(bytes)
    } else {
        Err(E::custom(format_args!(
            "the text {text:?} and its bytes {hex:?} differ"
        )))
    }
}

/// A file's `name`, null when it could not be found, and its `name_bytes`.
pub(super) mod name {
    use super::*;

    #[derive(Serialize, Deserialize)]
    struct Json {
        name: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name_bytes: Option<String>,
    }

    pub(in super::super) fn serialize<S: Serializer>(
        name: &Option<OsString>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        Json {
            name: name.as_ref().map(|name| name.to_string_lossy().into()),
            name_bytes: name
                .as_ref()
                .filter(|name| name.to_str().is_none())
                .map(|name| to_hex(name)),
        }
        .serialize(serializer)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<OsString>, D::Error> {
        let Json { name, name_bytes } = Json::deserialize(deserializer)?;
        name.map(|name| decode(name, name_bytes)).transpose()
    }
}

/// A `command`'s arguments and their `command_bytes`.
pub(super) mod command {
    use super::*;

    #[derive(Serialize, Deserialize)]
    struct Json {
        command: Vec<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        command_bytes: Option<Vec<String>>,
    }

    pub(in super::super) fn serialize<S: Serializer>(
        command: &[OsString],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let utf8 = command.iter().all(|argument| argument.to_str().is_some());
        Json {
            command: command
                .iter()
                .map(|argument| argument.to_string_lossy().into())
                .collect(),
            command_bytes: (!utf8)
                .then(|| command.iter().map(|argument| to_hex(argument)).collect()),
        }
        .serialize(serializer)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<OsString>, D::Error> {
        let Json {
            command,
            command_bytes,
        } = Json::deserialize(deserializer)?;
        let Some(hex) = command_bytes else {
            return Ok(command.into_iter().map(OsString::from).collect());
        };
        if hex.len() != command.len() {
            return Err(D::Error::custom(
                "command and command_bytes differ in length",
            ));
        }
        command
            .into_iter()
            .zip(hex)
            .map(|(argument, hex)| decode(argument, Some(hex)))
            .collect()
    }
}
