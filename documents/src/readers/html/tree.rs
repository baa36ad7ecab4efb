//! A page as a tree, as browsers build it (html5ever), in one arena and under a budget.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

use html5ever::interface::{ElementFlags, NodeOrText, QuirksMode, TreeSink};
use html5ever::tendril::{StrTendril, TendrilSink};
use html5ever::tree_builder::TreeBuilderOpts;
use html5ever::{
    Attribute, ExpandedName, LocalName, Namespace, ParseOpts, QualName, ns, parse_document,
};

use crate::budget::Budget;
use crate::error::Why;

/// A node's place in the arena.
pub(super) type At = u32;

/// What a node is.
pub(super) enum What {
    /// The page itself, and what is of no matter: comments, instructions.
    Other,
    Text(String),
    Element {
        name: LocalName,
        attributes: Vec<Attribute>,
    },
}

pub(super) struct Node {
    pub(super) what: What,
    /// The line of the page that it begins on.
    pub(super) line: u32,
    depth: u32,
    parent: Option<At>,
    first: Option<At>,
    last: Option<At>,
    before: Option<At>,
    next: Option<At>,
}

/// A whole page; the first node is its root.
pub(super) struct Tree(Vec<Node>);

impl Tree {
    /// The page that a text is.
    pub(super) fn of(text: &str, budget: &Budget) -> Result<Self, Why> {
        /// Between two looks at the budget a hostile page gets no further than this.
        const STEP: usize = 4 << 10;
        let builder = Builder {
            nodes: RefCell::new(vec![Node::new(What::Other, 0)]),
            line: Cell::new(1),
            deepest: Cell::new(0),
        };
        let options = ParseOpts {
            // What stands in for scripts is text.
            tree_builder: TreeBuilderOpts { scripting_enabled: false, ..Default::default() },
            ..Default::default()
        };
        let mut parser = parse_document(builder, options);
        let mut rest = text;
        while !rest.is_empty() {
            let mut end = rest.len().min(STEP);
            while !rest.is_char_boundary(end) {
                end += 1;
            }
            let (step, further) = rest.split_at(end);
            parser.process(StrTendril::from_slice(step));
            let builder = &parser.tokenizer.sink.sink;
            budget.depth(builder.deepest.get() as usize)?;
            budget.nodes(builder.nodes.borrow().len())?;
            budget.time()?;
            rest = further;
        }
        Ok(parser.finish())
    }

    pub(super) fn node(&self, at: At) -> &Node {
        &self.0[at as usize]
    }

    pub(super) fn children(&self, at: At) -> impl Iterator<Item = At> + '_ {
        std::iter::successors(self.node(at).first, |child| self.node(*child).next)
    }

    /// The name of an element.
    pub(super) fn name(&self, at: At) -> Option<&str> {
        match &self.node(at).what {
            What::Element { name, .. } => Some(name),
            What::Text(_) | What::Other => None,
        }
    }

    /// An element's attribute.
    pub(super) fn attribute(&self, at: At, name: &str) -> Option<&str> {
        match &self.node(at).what {
            What::Element { attributes, .. } => attributes
                .iter()
                .find(|attribute| &*attribute.name.local == name)
                .map(|attribute| &*attribute.value),
            What::Text(_) | What::Other => None,
        }
    }

    /// All below a node, in order, as long as it is asked for.
    pub(super) fn below(&self, top: At) -> impl Iterator<Item = At> + '_ {
        let mut at = top;
        std::iter::from_fn(move || {
            if let Some(first) = self.node(at).first {
                at = first;
                return Some(at);
            }
            while at != top {
                if let Some(next) = self.node(at).next {
                    at = next;
                    return Some(at);
                }
                at = self.node(at).parent?;
            }
            None
        })
    }
}

impl Node {
    fn new(what: What, line: u32) -> Self {
        Self {
            what,
            line,
            depth: 0,
            parent: None,
            first: None,
            last: None,
            before: None,
            next: None,
        }
    }
}

/// An element or other node while the tree grows. The name stands beside the place, for whoever asks it.
#[derive(Clone)]
struct Handle {
    at: At,
    name: Option<Rc<QualName>>,
}

struct Builder {
    nodes: RefCell<Vec<Node>>,
    line: Cell<u32>,
    deepest: Cell<u32>,
}

impl Builder {
    fn add(&self, what: What) -> At {
        let mut nodes = self.nodes.borrow_mut();
        nodes.push(Node::new(what, self.line.get()));
        (nodes.len() - 1) as At
    }

    fn detach(&self, at: At) {
        let mut nodes = self.nodes.borrow_mut();
        let (parent, before, next) = {
            let node = &mut nodes[at as usize];
            (node.parent.take(), node.before.take(), node.next.take())
        };
        let Some(parent) = parent else { return };
        match before {
            Some(before) => nodes[before as usize].next = next,
            None => nodes[parent as usize].first = next,
        }
        match next {
            Some(next) => nodes[next as usize].before = before,
            None => nodes[parent as usize].last = before,
        }
    }

    /// Puts a node without a parent before another child, or behind all.
    fn put(&self, parent: At, at: At, next: Option<At>) {
        self.detach(at);
        let mut nodes = self.nodes.borrow_mut();
        let depth = nodes[parent as usize].depth + 1;
        self.deepest.set(self.deepest.get().max(depth));
        let before = match next {
            Some(next) => nodes[next as usize].before.replace(at),
            None => nodes[parent as usize].last.replace(at),
        };
        match before {
            Some(before) => nodes[before as usize].next = Some(at),
            None => nodes[parent as usize].first = Some(at),
        }
        let node = &mut nodes[at as usize];
        (node.parent, node.before, node.next, node.depth) = (Some(parent), before, next, depth);
    }

    fn insert(&self, parent: At, child: NodeOrText<Handle>, next: Option<At>) {
        match child {
            NodeOrText::AppendNode(node) => self.put(parent, node.at, next),
            NodeOrText::AppendText(text) => {
                let beside = {
                    let nodes = self.nodes.borrow();
                    next.map_or(nodes[parent as usize].last, |next| nodes[next as usize].before)
                };
                if let Some(beside) = beside
                    && let What::Text(before) = &mut self.nodes.borrow_mut()[beside as usize].what
                {
                    before.push_str(&text);
                    return;
                }
                let at = self.add(What::Text(text.to_string()));
                self.put(parent, at, next);
            }
        }
    }
}

impl TreeSink for Builder {
    type Handle = Handle;
    type Output = Tree;
    type ElemName<'a> = ExpandedName<'a>;

    fn finish(self) -> Tree {
        Tree(self.nodes.into_inner())
    }

    fn parse_error(&self, _: Cow<'static, str>) {}

    fn get_document(&self) -> Handle {
        Handle { at: 0, name: None }
    }

    fn elem_name<'a>(&'a self, target: &'a Handle) -> ExpandedName<'a> {
        const NO_NAMESPACE: &Namespace = &ns!();
        const NO_NAME: &LocalName = &html5ever::local_name!("");
        match &target.name {
            Some(name) => name.expanded(),
            None => ExpandedName { ns: NO_NAMESPACE, local: NO_NAME },
        }
    }

    fn create_element(
        &self,
        name: QualName,
        attributes: Vec<Attribute>,
        _: ElementFlags,
    ) -> Handle {
        let at = self.add(What::Element { name: name.local.clone(), attributes });
        Handle { at, name: Some(Rc::new(name)) }
    }

    fn create_comment(&self, _: StrTendril) -> Handle {
        Handle { at: self.add(What::Other), name: None }
    }

    fn create_pi(&self, _: StrTendril, _: StrTendril) -> Handle {
        Handle { at: self.add(What::Other), name: None }
    }

    fn append(&self, parent: &Handle, child: NodeOrText<Handle>) {
        self.insert(parent.at, child, None);
    }

    fn append_based_on_parent_node(
        &self,
        element: &Handle,
        before: &Handle,
        child: NodeOrText<Handle>,
    ) {
        let has_parent = self.nodes.borrow()[element.at as usize].parent.is_some();
        if has_parent {
            self.append_before_sibling(element, child);
        } else {
            self.append(before, child);
        }
    }

    fn append_doctype_to_document(&self, _: StrTendril, _: StrTendril, _: StrTendril) {}

    fn get_template_contents(&self, target: &Handle) -> Handle {
        target.clone()
    }

    fn same_node(&self, a: &Handle, b: &Handle) -> bool {
        a.at == b.at
    }

    fn set_quirks_mode(&self, _: QuirksMode) {}

    fn append_before_sibling(&self, sibling: &Handle, child: NodeOrText<Handle>) {
        let parent = self.nodes.borrow()[sibling.at as usize].parent;
        if let Some(parent) = parent {
            self.insert(parent, child, Some(sibling.at));
        }
    }

    fn add_attrs_if_missing(&self, target: &Handle, more: Vec<Attribute>) {
        if let What::Element { attributes, .. } =
            &mut self.nodes.borrow_mut()[target.at as usize].what
        {
            for attribute in more {
                if attributes.iter().all(|known| known.name != attribute.name) {
                    attributes.push(attribute);
                }
            }
        }
    }

    fn remove_from_parent(&self, target: &Handle) {
        self.detach(target.at);
    }

    fn reparent_children(&self, node: &Handle, parent: &Handle) {
        loop {
            let first = self.nodes.borrow()[node.at as usize].first;
            let Some(first) = first else { return };
            self.put(parent.at, first, None);
        }
    }

    fn set_current_line(&self, line: u64) {
        self.line.set(u32::try_from(line).unwrap_or(u32::MAX));
    }
}
