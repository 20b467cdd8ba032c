//! The JSON Schema of a file of connections and rules.

use serde_json::{Value, json};

use crate::load::{NAME_CHARS_MAX, TARGETS_MAX};

/// The JSON Schema (draft 2020-12) of a file of connections and rules. What a connector reads, of connections and of
/// targets, is left open: any map.
#[must_use]
pub fn schema() -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Tidemill connections and rules",
        "type": "object",
        "properties": {
            "connections": {
                "description": "The systems that rules send to, by name.",
                "type": ["object", "null"],
                "propertyNames": { "$ref": "#/$defs/name" },
                "additionalProperties": {
                    "description": "One kind of connector, and what it reads.",
                    "type": "object",
                    "minProperties": 1,
                    "maxProperties": 1,
                    "additionalProperties": { "type": ["object", "null"] },
                },
            },
            "rules": { "type": ["array", "null"], "items": { "$ref": "#/$defs/rule" } },
        },
        "$defs": {
            "name": { "type": "string", "pattern": format!("^[A-Za-z0-9._-]{{1,{NAME_CHARS_MAX}}}$") },
            "template": { "description": "Text that may have `{{ … }}` in it.", "type": "string" },
            "duration": { "type": "string", "pattern": "^[0-9]+(ms|s|m|h|d)$", "examples": ["100ms", "5s", "1h"] },
            "rule": rule(),
            "event": event(),
            "data": data(),
            "target": target(),
            "retry": retry(),
            "pattern": pattern(),
            "mqttPattern": mqtt_pattern(),
            "dataPattern": {
                "anyOf": [
                    { "$ref": "#/$defs/alternatives" },
                    {
                        "type": "object",
                        "minProperties": 1,
                        "properties": { "$or": { "$ref": "#/$defs/dataPatterns" } },
                        "additionalProperties": { "$ref": "#/$defs/dataPattern" },
                    },
                ],
            },
            "dataPatterns": { "type": "array", "minItems": 1, "items": { "$ref": "#/$defs/dataPattern" } },
            "alternatives": {
                "description": "One of these has to be met.",
                "type": "array",
                "minItems": 1,
                "items": { "anyOf": [{ "type": ["string", "number", "boolean", "null"] }, { "$ref": "#/$defs/operator" }] },
            },
            "operator": operator(),
        },
    })
}

fn rule() -> Value {
    json!({
        "type": "object",
        "required": ["name", "from", "to"],
        "additionalProperties": false,
        "properties": {
            "name": { "$ref": "#/$defs/name" },
            "description": { "description": "What the rule is for.", "type": "string" },
            "from": {
                "description": "Where messages come from.",
                "type": "object",
                "required": ["mqtt"],
                "additionalProperties": false,
                "properties": {
                    "mqtt": {
                        "description": "MQTT topic filters.",
                        "type": "array",
                        "minItems": 1,
                        "items": { "type": "string", "minLength": 1 },
                    },
                },
            },
            "where": { "$ref": "#/$defs/pattern" },
            "event": { "$ref": "#/$defs/event" },
            "data": { "$ref": "#/$defs/data" },
            "to": {
                "description": "Where events go.",
                "type": "array",
                "minItems": 1,
                "maxItems": TARGETS_MAX,
                "items": { "$ref": "#/$defs/target" },
            },
        },
    })
}

fn event() -> Value {
    json!({
        "description": "The attributes of the CloudEvent; each has a default.",
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "type": { "$ref": "#/$defs/template", "default": crate::mapping::TYPE },
            "source": { "$ref": "#/$defs/template", "default": crate::mapping::SOURCE },
            "subject": { "$ref": "#/$defs/template", "default": "{{ topic }}" },
            "time": { "$ref": "#/$defs/template", "default": "{{ time }}" },
            "datacontenttype": { "$ref": "#/$defs/template" },
            "dataschema": { "$ref": "#/$defs/template" },
            "extensions": {
                "type": "object",
                "propertyNames": { "pattern": "^[a-z0-9]{1,20}$" },
                "additionalProperties": { "type": ["string", "integer", "boolean"] },
            },
        },
    })
}

fn data() -> Value {
    json!({
        "description": "The data of the event; without it, the payload untouched.",
        "anyOf": [
            { "$ref": "#/$defs/template" },
            { "type": ["number", "boolean", "null"] },
            { "type": "array", "items": { "$ref": "#/$defs/data" } },
            {
                "type": "object",
                "required": ["jsonpath"],
                "additionalProperties": false,
                "properties": { "jsonpath": { "type": "string" }, "default": true },
            },
            {
                "type": "object",
                "properties": { "jsonpath": false },
                "additionalProperties": { "$ref": "#/$defs/data" },
            },
        ],
    })
}

fn target() -> Value {
    json!({
        "description": "A connection, and what its connector reads.",
        "type": "object",
        "minProperties": 1,
        "maxProperties": 1,
        "additionalProperties": {
            "type": ["object", "null"],
            "properties": { "name": { "$ref": "#/$defs/name" }, "retry": { "$ref": "#/$defs/retry" } },
        },
    })
}

fn retry() -> Value {
    json!({
        "description": "When a failed event is tried again; without bounds, for ever.",
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "attempts": { "description": "Attempts in all.", "type": "integer", "minimum": 1 },
            "for": { "description": "Time since the first attempt.", "$ref": "#/$defs/duration" },
            "first": { "description": "The first wait.", "$ref": "#/$defs/duration", "default": "100ms" },
            "max": { "description": "The longest wait.", "$ref": "#/$defs/duration", "default": "30s" },
        },
    })
}

fn pattern() -> Value {
    json!({
        "description": "An event pattern: all keys have to be met.",
        "type": "object",
        "minProperties": 1,
        "additionalProperties": false,
        "properties": {
            "data": { "$ref": "#/$defs/dataPattern" },
            "mqtt": { "$ref": "#/$defs/mqttPattern" },
            "id": { "$ref": "#/$defs/alternatives" },
            "source": { "$ref": "#/$defs/alternatives" },
            "type": { "$ref": "#/$defs/alternatives" },
            "subject": { "$ref": "#/$defs/alternatives" },
            "time": { "$ref": "#/$defs/alternatives" },
            "$or": { "type": "array", "minItems": 1, "items": { "$ref": "#/$defs/pattern" } },
        },
    })
}

fn mqtt_pattern() -> Value {
    let by_name = json!({ "type": "object", "minProperties": 1, "additionalProperties": { "$ref": "#/$defs/alternatives" } });
    json!({
        "type": "object",
        "minProperties": 1,
        "additionalProperties": false,
        "properties": {
            "topic": { "$ref": "#/$defs/alternatives" },
            "levels": {
                "description": "Any level of the topic, or single ones by number.",
                "anyOf": [{ "$ref": "#/$defs/alternatives" }, by_name],
            },
            "client": { "$ref": "#/$defs/alternatives" },
            "user": { "$ref": "#/$defs/alternatives" },
            "qos": { "$ref": "#/$defs/alternatives" },
            "retain": { "$ref": "#/$defs/alternatives" },
            "content_type": { "$ref": "#/$defs/alternatives" },
            "properties": by_name,
            "$or": { "type": "array", "minItems": 1, "items": { "$ref": "#/$defs/mqttPattern" } },
        },
    })
}

fn operator() -> Value {
    let affix = json!({
        "anyOf": [
            { "type": "string" },
            {
                "type": "object",
                "required": ["equals-ignore-case"],
                "additionalProperties": false,
                "properties": { "equals-ignore-case": { "type": "string" } },
            },
        ],
    });
    let texts = json!({ "anyOf": [{ "type": "string" }, { "type": "array", "minItems": 1, "items": { "type": "string" } }] });
    let scalar = json!({ "type": ["string", "number", "boolean", "null"] });
    json!({
        "type": "object",
        "minProperties": 1,
        "maxProperties": 1,
        "additionalProperties": false,
        "properties": {
            "prefix": affix,
            "suffix": affix,
            "equals-ignore-case": { "type": "string" },
            "wildcard": { "type": "string" },
            "exists": { "type": "boolean" },
            "cidr": { "type": "string" },
            "numeric": {
                "type": "array",
                "minItems": 2,
                "maxItems": 4,
                "items": { "anyOf": [{ "type": "number" }, { "enum": ["=", "<", "<=", ">", ">="] }] },
            },
            "anything-but": {
                "anyOf": [
                    scalar,
                    { "type": "array", "minItems": 1, "items": scalar },
                    {
                        "type": "object",
                        "minProperties": 1,
                        "maxProperties": 1,
                        "additionalProperties": false,
                        "properties": {
                            "prefix": texts,
                            "suffix": texts,
                            "wildcard": texts,
                            "equals-ignore-case": texts,
                        },
                    },
                ],
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::load::{RETRY_KEYS, RULE_KEYS};
    use crate::mapping::EVENT_KEYS;
    use crate::pattern::{ANYTHING_BUT_OPERATORS, MQTT_KEYS, OPERATORS, ROOT_KEYS};

    /// The schema and the parser know the same keys.
    #[test]
    fn names_the_keys_that_the_parser_knows() {
        let schema = schema();
        for (pointer, keys) in [
            ("/$defs/rule/properties", &RULE_KEYS[..]),
            ("/$defs/event/properties", &EVENT_KEYS[..]),
            ("/$defs/retry/properties", &RETRY_KEYS[..]),
            ("/$defs/pattern/properties", &ROOT_KEYS[..]),
            ("/$defs/mqttPattern/properties", &MQTT_KEYS[..]),
            ("/$defs/operator/properties", &OPERATORS[..]),
            ("/$defs/operator/properties/anything-but/anyOf/2/properties", &ANYTHING_BUT_OPERATORS[..]),
        ] {
            let properties = schema.pointer(pointer).and_then(Value::as_object).expect(pointer);
            let named: BTreeSet<&str> = properties.keys().map(String::as_str).collect();
            assert_eq!(named, keys.iter().copied().collect(), "{pointer}");
        }
    }

    /// Every reference leads somewhere.
    #[test]
    fn references_are_there() {
        fn walk(value: &Value, root: &Value, seen: &mut usize) {
            if let Some(reference) = value.get("$ref").and_then(Value::as_str) {
                let pointer = reference.strip_prefix('#').expect("a local reference");
                assert!(root.pointer(pointer).is_some(), "{reference}");
                *seen += 1;
            }
            match value {
                Value::Array(items) => items.iter().for_each(|item| walk(item, root, seen)),
                Value::Object(entries) => entries.values().for_each(|entry| walk(entry, root, seen)),
                _ => {}
            }
        }
        let (schema, mut seen) = (schema(), 0);
        walk(&schema, &schema, &mut seen);
        assert!(seen > 20, "{seen}");
    }
}
