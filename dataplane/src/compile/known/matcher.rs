//! What matches texts, headers, parameters and metadata.

use super::{
    Known::{Each, In, Marker, NoEffect, Read, Refused},
    messages,
};

messages! {
    STRING = "envoy.type.matcher.v3.StringMatcher" {
        1 "exact": Read;
        2 "prefix": Read;
        3 "suffix": Read;
        5 "safe_regex": In(&REGEX);
        6 "ignore_case": Read;
        7 "contains": Read;
        8 "custom": Refused;
    }

    REGEX = "envoy.type.matcher.v3.RegexMatcher" {
        1 "google_re2": NoEffect("the language is always RE2's");
        2 "regex": Read;
    }

    REGEX_REWRITE = "envoy.type.matcher.v3.RegexMatchAndSubstitute" {
        1 "pattern": In(&REGEX);
        2 "substitution": Read;
    }

    PATH = "envoy.type.matcher.v3.PathMatcher" {
        1 "path": In(&STRING);
    }

    HEADER = "envoy.config.route.v3.HeaderMatcher" {
        1 "name": Read;
        4 "exact_match": Read;
        6 "range_match": In(&LONG_RANGE);
        7 "present_match": Read;
        8 "invert_match": Read;
        9 "prefix_match": Read;
        10 "suffix_match": Read;
        11 "safe_regex_match": In(&REGEX);
        12 "contains_match": Read;
        13 "string_match": In(&STRING);
        14 "treat_missing_header_as_empty": Read;
    }

    LONG_RANGE = "envoy.type.v3.Int64Range" {
        1 "start": Read;
        2 "end": Read;
    }

    QUERY = "envoy.config.route.v3.QueryParameterMatcher" {
        1 "name": Read;
        5 "string_match": In(&STRING);
        6 "present_match": Read;
    }

    METADATA_MATCHER = "envoy.type.matcher.v3.MetadataMatcher" {
        1 "filter": Read;
        2 "path": Each(&METADATA_PATH);
        3 "value": In(&VALUE_MATCHER);
        4 "invert": Read;
    }

    METADATA_PATH = "envoy.type.matcher.v3.MetadataMatcher.PathSegment" {
        1 "key": Read;
    }

    VALUE_MATCHER = "envoy.type.matcher.v3.ValueMatcher" {
        1 "null_match": Marker;
        2 "double_match": In(&DOUBLE);
        3 "string_match": In(&STRING);
        4 "bool_match": Read;
        5 "present_match": Read;
        6 "list_match": In(&LIST);
        7 "or_match": In(&OR);
    }

    DOUBLE = "envoy.type.matcher.v3.DoubleMatcher" {
        1 "range": In(&DOUBLE_RANGE);
        2 "exact": Read;
    }

    DOUBLE_RANGE = "envoy.type.v3.DoubleRange" {
        1 "start": Read;
        2 "end": Read;
    }

    LIST = "envoy.type.matcher.v3.ListMatcher" {
        1 "one_of": In(&VALUE_MATCHER);
    }

    OR = "envoy.type.matcher.v3.OrMatcher" {
        1 "value_matchers": Each(&VALUE_MATCHER);
    }

    FILTER_STATE = "envoy.type.matcher.v3.FilterStateMatcher" {
        1 "key": Read;
        2 "string_match": In(&STRING);
        3 "address_match": Refused;
    }

    METADATA_KEY = "envoy.type.metadata.v3.MetadataKey" {
        1 "key": Read;
        2 "path": Each(&METADATA_KEY_PATH);
    }

    METADATA_KEY_PATH = "envoy.type.metadata.v3.MetadataKey.PathSegment" {
        1 "key": Read;
        2 "index": Read;
    }
}
