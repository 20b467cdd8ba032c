//! [`Paths`]: the paths that conditions name, as a tree.

use foldhash::HashMap;

/// The node that all paths begin at.
pub(super) const ROOT: u32 = 0;

/// The paths that conditions name, as a tree. A node is a prefix of a path; one that a condition ends at is a *field*.
#[derive(Debug)]
pub(super) struct Paths {
    /// The first is the root.
    nodes: Vec<Node>,
    fields: u32,
}

#[derive(Debug, Default)]
struct Node {
    children: HashMap<Box<str>, u32>,
    field: Option<u32>,
}

impl Default for Paths {
    fn default() -> Paths {
        Paths { nodes: vec![Node::default()], fields: 0 }
    }
}

impl Paths {
    /// The child of a node; it is added if need be.
    pub(super) fn insert(&mut self, parent: u32, name: &str) -> u32 {
        let fresh = self.nodes.len() as u32;
        let Some(node) = self.nodes.get_mut(parent as usize) else { return parent };
        let child = *node.children.entry(name.into()).or_insert(fresh);
        if child == fresh {
            self.nodes.push(Node::default());
        }
        child
    }

    /// Makes a node a field, and gives the field's number.
    pub(super) fn make_field(&mut self, node: u32) -> usize {
        let fresh = self.fields;
        let Some(node) = self.nodes.get_mut(node as usize) else { return 0 };
        let field = *node.field.get_or_insert(fresh);
        self.fields += u32::from(field == fresh);
        field as usize
    }

    pub(super) fn child(&self, parent: u32, name: &str) -> Option<u32> {
        self.nodes.get(parent as usize)?.children.get(name).copied()
    }

    pub(super) fn children(&self, parent: u32) -> impl Iterator<Item = (&str, u32)> {
        let node = self.nodes.get(parent as usize);
        node.into_iter().flat_map(|node| &node.children).map(|(name, child)| (&**name, *child))
    }

    pub(super) fn has_children(&self, node: u32) -> bool {
        self.nodes.get(node as usize).is_some_and(|node| !node.children.is_empty())
    }

    pub(super) fn field(&self, node: u32) -> Option<usize> {
        self.nodes.get(node as usize)?.field.map(|field| field as usize)
    }
}
