//! What is said to users about their configuration.
//!
//! A user's mistake is a value: a [`Diagnostic`] names the object, the field, the place in the
//! file, what was found, what was expected and how to mend it. Every stage up to the plan makes
//! them; nothing here knows where they are shown.

use std::{
    fmt::{self, Write as _},
    sync::Arc,
};

use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::ir::ObjectId;

/// How much a diagnostic matters. Ordered from worst to least.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// The object is refused; its last accepted version stays in force.
    Error,
    /// The object is accepted, but a reference or another object stands against it.
    ErrorRef,
    /// Accepted, and probably not what was meant.
    #[serde(rename = "warn")]
    Warning,
    /// Worth knowing.
    Info,
}

impl Severity {
    /// The word that is printed.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::ErrorRef => "error-ref",
            Self::Warning => "warn",
            Self::Info => "info",
        }
    }

    /// Whether `analyze` exits with 1 because of it.
    pub fn fails_analysis(self) -> bool {
        matches!(self, Self::Error | Self::ErrorRef)
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

macro_rules! codes {
    ($( $(#[doc = $doc:literal])+ $name:ident = $code:literal $(, $istio:literal)?; )+) => {
        /// What a diagnostic is about; stable across releases, so that scripts can filter by it.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum Code { $( $(#[doc = $doc])+ $name, )+ }

        impl Code {
            /// Every code, in numeric order.
            pub const ALL: &'static [Self] = &[$( Self::$name, )+];

            /// The printed form, `FM0101`.
            pub fn as_str(self) -> &'static str {
                match self { $( Self::$name => $code, )+ }
            }

            /// The code of Istio's analyzer for the same finding, where it has one.
            pub fn istio(self) -> Option<&'static str> {
                match self { $( Self::$name => { let code: Option<&'static str> = None; $( let code = code.or(Some($istio)); )? code } )+ }
            }
        }
    };
}

codes! {
    /// The file cannot be read as text: binary, too large, wrong encoding.
    UnreadableFile = "FM0001";
    /// The document is not YAML.
    Syntax = "FM0002";
    /// The same key twice in one mapping.
    DuplicateKey = "FM0003";
    /// Aliases, nesting or size beyond the limits.
    TooLarge = "FM0004";
    /// All leading blanks are gone.
    IndentationLost = "FM0005";
    /// A command line between the documents.
    ShellCommand = "FM0006";
    /// `apiVersion`, `kind` or `metadata` cannot be used.
    NotAnObject = "FM0007";
    /// A kind or version that nobody defines.
    UnknownKind = "FM0008";
    /// A known kind that this release does not serve, or one that has no meaning for a mesh.
    UnsupportedKind = "FM0009";
    /// Two objects of the same kind, namespace and name.
    DuplicateObject = "FM0010";
    /// A kind or field that guards access, and that this release does not serve: the object is
    /// refused.
    UnservedGuard = "FM0011";
    /// A field that the kind does not have.
    UnknownField = "FM0101";
    /// A value of another type.
    WrongType = "FM0102", "IST0106";
    /// A value outside what the field allows.
    InvalidValue = "FM0103", "IST0106";
    /// A required field that is not there.
    MissingField = "FM0104", "IST0106";
    /// A field that is accepted, but that this release does not act on.
    NotActedOn = "FM0105";
    /// A field that is deprecated, or has no effect any more.
    Deprecated = "FM0106", "IST0002";
    /// Something refers to an object, host or subset that does not exist.
    MissingReference = "FM0201", "IST0101";
    /// The namespace's pods get no sidecar.
    NotInjected = "FM0202", "IST0102";
    /// Two VirtualServices claim one host in the mesh.
    ConflictingHosts = "FM0203", "IST0109";
    /// Two policies select the same workloads.
    ConflictingPolicies = "FM0204", "IST0110";
    /// A port whose name does not say its protocol.
    PortName = "FM0205", "IST0118";
    /// A credential that is not where the gateway looks for it.
    MissingCredential = "FM0206", "IST0161";
    /// A rule that is there but cannot take effect.
    NoEffect = "FM0207";
    /// A setting that drops settings of the level above.
    DropsSettings = "FM0208";
    /// Retries that cannot all happen, or happen where they may hurt.
    Retries = "FM0209";
    /// A policy that refuses everything.
    DeniesAll = "FM0210";
    /// The label for automatic injection is in a wrong place.
    Injection = "FM0211";
    /// A port that clients of today do not use any more.
    LegacyPort = "FM0212";
    /// A rule with conditions on HTTP that meets connections of other protocols.
    HttpOnly = "FM0213";
    /// A server of a Gateway whose port or host another Gateway's server has.
    ConflictingServers = "FM0214", "IST0145";
    /// A subset of a DestinationRule that none of the service's pods belongs to.
    EmptySubset = "FM0215", "IST0173";
    /// A port that only an address of its own would tell from another's.
    AddressesRequired = "FM0216", "IST0134";
    /// A provider of telemetry that is not there, or does not do what it is named for.
    MissingProvider = "FM0217", "IST0157";
    /// Two Telemetry objects of a namespace without a selector.
    ConflictingTelemetry = "FM0218", "IST0160";
    /// Two Telemetry objects that select the same workloads.
    ConflictingTelemetrySelectors = "FM0219", "IST0159";
    /// Something that costs much where traffic is high.
    Costly = "FM0220";
    /// A label of metrics that has a value for every request.
    UnboundedLabel = "FM0221";
    /// Tokens that are checked where nobody has to have one.
    OptionalTokens = "FM0222";
    /// An annotation of Istio's that does not exist.
    UnknownAnnotation = "FM0230", "IST0108";
    /// An annotation on an object that nobody looks for it on.
    MisplacedAnnotation = "FM0231", "IST0107";
    /// An annotation whose value cannot be used.
    InvalidAnnotation = "FM0232", "IST0125";
    /// An annotation that is deprecated, or not settled yet.
    UnsettledAnnotation = "FM0233", "IST0136";
    /// A pod without a proxy where there should be one.
    MissingProxy = "FM0234", "IST0103";
    /// An application that runs as the user whose traffic is not redirected.
    ReservedUser = "FM0235", "IST0144";
    /// Services of the same pods that say different things of one port.
    SharedPorts = "FM0236", "IST0116";
    /// A container that nobody will give an image.
    ImageAuto = "FM0237", "IST0146";
    /// TLS to a server of which too little is verified.
    UnverifiedServer = "FM0238", "IST0128";
    /// A rule of a VirtualService that no request reaches.
    UnreachableRule = "FM0239", "IST0130";
    /// A match whose requests an earlier one takes.
    IneffectiveMatch = "FM0240", "IST0131";
    /// A VirtualService bound to a Gateway that has none of its hosts.
    HostNotInGateway = "FM0241", "IST0132";
    /// A server of a Gateway at a port that no Service leads to.
    GatewayPort = "FM0242", "IST0162";
    /// A patch that does nothing when another comes later.
    PatchOrder = "FM0243", "IST0151";
    /// A selector that selects nothing.
    SelectsNothing = "FM0244", "IST0127";
    /// What a controller says of an object in its status.
    NegativeCondition = "FM0245", "IST0171";
    /// A port that another ServiceEntry gives another protocol.
    ConflictingProtocols = "FM0247", "IST0177";
    /// Traffic that is sent nowhere or lost, as seen when it was translated.
    Translation = "FM0301";
    /// A proxy refused what an object was translated to.
    RefusedByProxy = "FM0401";
    /// A workload whose proxy is not there, or not what is written of it.
    NoProxy = "FM0402";
    /// A kind that the cluster does not have, or that its API server does not let us read.
    Unwatched = "FM0501";
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.as_str())
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A place in a file; lines and columns count from 1, columns in characters.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub struct Position {
    /// The file as the user named it; empty for objects that came without one.
    pub file: Arc<str>,
    /// Line.
    pub line: u32,
    /// Column.
    pub col: u32,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.col)
    }
}

/// One step of a [`FieldPath`].
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Segment {
    /// A field or a key of a map.
    Field(Arc<str>),
    /// An element of a list.
    Index(usize),
}

/// The way to a field from the top of its object; the empty path is the object itself.
/// Prints as `spec.http[0].match[0].headers["end-user"].exact`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct FieldPath(pub Vec<Segment>);

impl FieldPath {
    /// The object itself.
    pub fn root() -> Self {
        Self::default()
    }

    /// The path of a field below this one.
    #[must_use]
    pub fn field(&self, name: impl Into<Arc<str>>) -> Self {
        self.child(Segment::Field(name.into()))
    }

    /// The path of a list element below this one.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        self.child(Segment::Index(index))
    }

    /// Whether nothing is named.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Reads the printed form without quoting: `spec.http[0].route` (map keys that need quotes: use
    /// [`Self::field`]).
    pub fn of(text: &str) -> Self {
        let mut path = Self::root();
        for part in text.split('.').filter(|p| !p.is_empty()) {
            let (name, rest) = part.split_at(part.find('[').unwrap_or(part.len()));
            if !name.is_empty() {
                path.0.push(Segment::Field(name.into()));
            }
            let indices = rest.split(['[', ']']).filter_map(|i| i.parse().ok());
            path.0.extend(indices.map(Segment::Index));
        }
        path
    }

    fn child(&self, segment: Segment) -> Self {
        let mut segments = Vec::with_capacity(self.0.len() + 1);
        segments.extend(self.0.iter().cloned());
        segments.push(segment);
        Self(segments)
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, segment) in self.0.iter().enumerate() {
            match segment {
                Segment::Index(index) => write!(f, "[{index}]")?,
                Segment::Field(name) if !is_plain(name) => write!(f, "[\"{name}\"]")?,
                Segment::Field(name) if i == 0 => f.write_str(name)?,
                Segment::Field(name) => write!(f, ".{name}")?,
            }
        }
        Ok(())
    }
}

fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

impl Serialize for FieldPath {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

/// What takes a finding away, where only one thing can be meant.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Change {
    /// The field has this name.
    Rename(FieldPath, Arc<str>),
    /// The field has this value, a scalar or a list of scalars.
    Set(FieldPath, Value),
    /// In the place of the field stands this, in one line: a field with its value.
    Replace(FieldPath, Arc<str>),
    /// The field is not there.
    Remove(FieldPath),
    /// The map that the path leads to has this field too, a scalar.
    Add(FieldPath, &'static str, Value),
}

impl Change {
    /// The field that is changed, or the map that gets one.
    pub fn field(&self) -> &FieldPath {
        match self {
            Self::Rename(field, _)
            | Self::Set(field, _)
            | Self::Replace(field, _)
            | Self::Remove(field)
            | Self::Add(field, ..) => field,
        }
    }

    /// As [`Self::field`].
    pub fn field_mut(&mut self) -> &mut FieldPath {
        match self {
            Self::Rename(field, _)
            | Self::Set(field, _)
            | Self::Replace(field, _)
            | Self::Remove(field)
            | Self::Add(field, ..) => field,
        }
    }

    /// The same, seen from where `base` leads to what it was seen from.
    #[must_use]
    pub fn below(mut self, base: &FieldPath) -> Self {
        let own = &self.field().0;
        *self.field_mut() = FieldPath(base.0.iter().chain(own).cloned().collect());
        self
    }
}

/// A change as the text of the file that a [`Position`] names: what stands from its beginning to
/// before its end becomes `text`. Lines and columns as there.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub struct TextEdit {
    /// First line.
    pub line: u32,
    /// First column.
    pub col: u32,
    /// Line of the end.
    pub end_line: u32,
    /// The column behind the last one.
    pub end_col: u32,
    /// What stands there then.
    pub text: String,
}

/// Another object that a diagnostic speaks of.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct Related {
    /// The object.
    pub object: ObjectId,
    /// Where it is written, if in a file.
    pub position: Option<Position>,
}

/// One finding.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct Diagnostic {
    /// What it is about.
    pub code: Code,
    /// The same finding in Istio's analyzer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub istio_code: Option<&'static str>,
    /// How much it matters.
    pub severity: Severity,
    /// The object, once it is known.
    pub object: Option<ObjectId>,
    /// The field; empty for the object or file as a whole.
    pub field: FieldPath,
    /// Where that is written, if in a file.
    #[serde(flatten)]
    pub position: Option<Position>,
    /// What is wrong, lower case, no full stop.
    pub message: String,
    /// What was found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub got: Option<String>,
    /// What was expected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
    /// How to mend it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
    /// The change that `fix` speaks of, where it is the only one.
    #[serde(skip)]
    pub change: Option<Change>,
    /// The change in the file, if the object came from one and it can be made there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub edit: Option<TextEdit>,
    /// Other objects that play a part.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub related: Vec<Related>,
}

impl Diagnostic {
    /// A finding about a field; object and position are added by whoever knows them.
    pub fn new(
        code: Code,
        severity: Severity,
        field: FieldPath,
        message: impl Into<String>,
    ) -> Self {
        Self {
            code,
            istio_code: code.istio(),
            severity,
            object: None,
            field,
            position: None,
            message: message.into(),
            got: None,
            expected: None,
            fix: None,
            change: None,
            edit: None,
            related: Vec::new(),
        }
    }

    /// An [`Severity::Error`].
    pub fn error(code: Code, field: FieldPath, message: impl Into<String>) -> Self {
        Self::new(code, Severity::Error, field, message)
    }

    /// An [`Severity::ErrorRef`].
    pub fn error_ref(code: Code, field: FieldPath, message: impl Into<String>) -> Self {
        Self::new(code, Severity::ErrorRef, field, message)
    }

    /// A [`Severity::Warning`].
    pub fn warning(code: Code, field: FieldPath, message: impl Into<String>) -> Self {
        Self::new(code, Severity::Warning, field, message)
    }

    /// An [`Severity::Info`].
    pub fn info(code: Code, field: FieldPath, message: impl Into<String>) -> Self {
        Self::new(code, Severity::Info, field, message)
    }

    /// Says what was found and what was expected.
    #[must_use]
    pub fn expected(mut self, expected: impl Into<String>, got: impl Into<String>) -> Self {
        self.expected = Some(expected.into());
        self.got = Some(got.into());
        self
    }

    /// Says how to mend it.
    #[must_use]
    pub fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }

    /// Says the one change that mends it.
    #[must_use]
    pub fn change(mut self, change: Change) -> Self {
        self.change = Some(change);
        self
    }

    /// Says the one value that the field is to have.
    #[must_use]
    pub fn instead(self, value: impl Into<Value>) -> Self {
        let value = value.into();
        let field = self.field.clone();
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        self.fix(format!("`{text}`")).change(Change::Set(field, value))
    }

    /// Says which object it is about.
    #[must_use]
    pub fn object(mut self, object: ObjectId) -> Self {
        self.object = Some(object);
        self
    }

    /// Says which message of Istio's analysis says the same, where the code alone does not tell.
    #[must_use]
    pub fn istio(mut self, code: &'static str) -> Self {
        self.istio_code = Some(code);
        self
    }

    /// Says where it is written.
    #[must_use]
    pub fn at(mut self, position: Option<Position>) -> Self {
        self.position = position;
        self
    }

    /// Names another object that plays a part.
    #[must_use]
    pub fn related(mut self, object: ObjectId, position: Option<Position>) -> Self {
        self.related.push(Related { object, position });
        self
    }
}

/// Longest printed part of a diagnostic, in characters.
const MAX_PRINTED: usize = 1_000;

/// Text as it is printed: one line, without control characters (which could play with a terminal),
/// not endless.
struct Printed<'a>(&'a str);

impl fmt::Display for Printed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars().take(MAX_PRINTED) {
            if c.is_control() {
                write!(f, "{}", c.escape_default())?;
            } else {
                f.write_char(c)?;
            }
        }
        if self.0.chars().nth(MAX_PRINTED).is_some() { f.write_str("…") } else { Ok(()) }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(position) = &self.position {
            write!(f, "{position}: ")?;
        }
        write!(f, "{}[{}]: ", self.severity, self.code)?;
        if let Some(object) = &self.object {
            write!(f, "{}: ", Printed(&object.to_string()))?;
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", Printed(&self.field.to_string()))?;
        }
        write!(f, "{}", Printed(&self.message))?;
        if let (Some(expected), Some(got)) = (&self.expected, &self.got) {
            write!(f, ": expected {}, got {}", Printed(expected), Printed(got))?;
        }
        if let Some(code) = self.istio_code {
            write!(f, " ({code})")?;
        }
        if let Some(fix) = &self.fix {
            write!(f, "; fix: {}", Printed(fix))?;
        }
        for related in &self.related {
            write!(f, "; see {}", Printed(&related.object.to_string()))?;
            if let Some(position) = &related.position {
                write!(f, " at {position}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_print_as_users_write_them() {
        let path = FieldPath::of("spec.http[0].match[1].headers").field("end-user").field("exact");
        assert_eq!(path.to_string(), r#"spec.http[0].match[1].headers["end-user"].exact"#);
        assert_eq!(
            FieldPath::of("metadata.labels").field("istio-injection").to_string(),
            r#"metadata.labels["istio-injection"]"#
        );
    }

    #[test]
    fn a_finding_is_one_line_and_one_json_object() {
        let position = Position { file: "a.yaml".into(), line: 3, col: 7 };
        let finding =
            Diagnostic::error(Code::InvalidValue, FieldPath::of("spec.host"), "bad\n\u{1b}[31m")
                .expected("a host", "x".repeat(5_000))
                .fix("`a`")
                .at(Some(position));
        let line = finding.to_string();
        assert!(
            line.starts_with(
                "a.yaml:3:7: error[FM0103]: spec.host: bad\\n\\u{1b}[31m: expected a host, got xxx"
            ),
            "{line}"
        );
        assert!(line.len() < 1_200 && line.ends_with("… (IST0106); fix: `a`"), "{line}");
        let json = serde_json::to_value(&finding).expect("plain data");
        assert_eq!(
            (&json["file"], &json["line"], &json["severity"]),
            (&"a.yaml".into(), &3.into(), &"error".into())
        );
        assert_eq!(
            (&json["code"], &json["field"], &json["object"]),
            (&"FM0103".into(), &"spec.host".into(), &serde_json::Value::Null)
        );
    }

    #[test]
    fn codes_are_unique_and_in_order() {
        let codes: Vec<&str> = Code::ALL.iter().map(|c| c.as_str()).collect();
        assert!(codes.windows(2).all(|w| w[0] < w[1]), "{codes:?}");
    }
}
