//! The tags of a template, written out again around its expressions.

use minijinja::machinery::Span;
use minijinja::machinery::ast::{Call, Expr, IfCond, Macro, Stmt};
use minijinja::{Error, ErrorKind};

/// Writes a tree as a template.
pub(super) struct Writer {
    pub(super) out: String,
    /// The line that `out` ends in.
    line: usize,
}

pub(super) type Written = Result<(), Error>;

impl Writer {
    /// With room for so many bytes.
    pub(super) fn new(room: usize) -> Self {
        Self { out: String::with_capacity(room), line: 1 }
    }

    pub(super) fn into_text(self) -> String {
        self.out
    }

    pub(super) fn put(&mut self, text: &str) {
        self.out.push_str(text);
    }

    /// Opens a tag on the line that it has in the source.
    fn open(&mut self, sign: &str, span: Span) {
        self.put(sign);
        while self.line < usize::from(span.start_line) {
            self.out.push('\n');
            self.line += 1;
        }
        self.out.push(' ');
    }

    fn body(&mut self, statements: &[Stmt<'_>]) -> Written {
        statements.iter().try_for_each(|statement| self.statement(statement))
    }

    /// A body that counts each time it is run.
    fn counted(&mut self, statements: &[Stmt<'_>]) -> Written {
        self.put("{{ graft_tick() }}");
        self.body(statements)
    }

    pub(super) fn statement(&mut self, statement: &Stmt<'_>) -> Written {
        match statement {
            Stmt::Template(part) => self.body(&part.children)?,
            Stmt::EmitExpr(part) => {
                self.open("{{", part.span());
                match &part.expr {
                    // Only as a tag of its own does it go deeper into a loop.
                    Expr::Call(call) if is_loop(call) => self.call(call)?,
                    expr => self.expression(expr)?,
                }
                self.put(" }}");
            }
            Stmt::EmitRaw(part) => {
                self.open("{{", part.span());
                self.put("graft_raw(");
                self.text(part.raw);
                self.put(") }}");
            }
            Stmt::ForLoop(part) => {
                self.open("{% for", part.span());
                if is_stored(&part.target) {
                    return Err(Error::new(
                        ErrorKind::SyntaxError,
                        "a loop over a namespace's place",
                    ));
                }
                self.target(&part.target)?;
                self.put(" in graft_see(");
                self.expression(&part.iter)?;
                self.put(")");
                if let Some(filter) = &part.filter_expr {
                    self.put(" if ");
                    self.expression(filter)?;
                }
                self.put(if part.recursive { " recursive %}" } else { " %}" });
                self.counted(&part.body)?;
                if !part.else_body.is_empty() {
                    self.put("{% else %}");
                    self.body(&part.else_body)?;
                }
                self.put("{% endfor %}");
            }
            Stmt::IfCond(part) => {
                self.open("{% if", part.span());
                self.condition(part)?;
            }
            Stmt::WithBlock(part) => {
                self.open("{% with", part.span());
                for (index, (target, value)) in part.assignments.iter().enumerate() {
                    self.put(if index > 0 { ", " } else { "" });
                    self.assignment(target, value)?;
                }
                self.put(" %}");
                self.body(&part.body)?;
                self.put("{% endwith %}");
            }
            Stmt::Set(part) => {
                self.open("{% set", part.span());
                self.assignment(&part.target, &part.expr)?;
                self.put(" %}");
            }
            other => self.rarer(other)?,
        }
        Ok(())
    }

    fn rarer(&mut self, statement: &Stmt<'_>) -> Written {
        match statement {
            Stmt::SetBlock(part) => {
                self.open("{% set", part.span());
                self.target(&part.target)?;
                if let Some(filter) = &part.filter {
                    self.put(" | ");
                    self.filter(filter)?;
                }
                self.put(" %}");
                self.body(&part.body)?;
                self.put("{% endset %}");
            }
            Stmt::AutoEscape(part) => {
                self.open("{% autoescape", part.span());
                self.expression(&part.enabled)?;
                self.put(" %}");
                self.body(&part.body)?;
                self.put("{% endautoescape %}");
            }
            Stmt::FilterBlock(part) => {
                self.open("{% filter", part.span());
                self.filter(&part.filter)?;
                self.put(" %}");
                self.body(&part.body)?;
                self.put("{% endfilter %}");
            }
            Stmt::Macro(part) => {
                self.open("{% macro", part.span());
                self.put(part.name);
                self.parameters(part)?;
                self.put(" %}");
                self.counted(&part.body)?;
                self.put("{% endmacro %}");
            }
            Stmt::CallBlock(part) => {
                self.open("{% call", part.span());
                self.parameters(&part.macro_decl)?;
                self.put(" ");
                self.call(&part.call)?;
                self.put(" %}");
                self.counted(&part.macro_decl.body)?;
                self.put("{% endcall %}");
            }
            Stmt::Continue(part) => {
                self.open("{% continue", part.span());
                self.put("%}");
            }
            Stmt::Break(part) => {
                self.open("{% break", part.span());
                self.put("%}");
            }
            Stmt::Do(part) => {
                self.open("{% do", part.span());
                self.call(&part.call)?;
                self.put(" %}");
            }
            _ => return Err(Error::new(ErrorKind::SyntaxError, "a tag that is not known here")),
        }
        Ok(())
    }

    /// From the condition on; `elif` is read as an `if` in what else there is.
    fn condition(&mut self, first: &IfCond<'_>) -> Written {
        let mut part = first;
        loop {
            self.expression(&part.expr)?;
            self.put(" %}");
            self.body(&part.true_body)?;
            match &part.false_body[..] {
                [] => break,
                [Stmt::IfCond(next)] => {
                    self.open("{% elif", next.span());
                    part = next;
                }
                other => {
                    self.put("{% else %}");
                    self.body(other)?;
                    break;
                }
            }
        }
        self.put("{% endif %}");
        Ok(())
    }

    fn assignment(&mut self, target: &Expr<'_>, value: &Expr<'_>) -> Written {
        self.target(target)?;
        self.put(if is_stored(target) { " = graft_store(" } else { " = (" });
        self.expression(value)?;
        self.put(")");
        Ok(())
    }

    /// What is assigned to: names, lists of them, a place of a namespace.
    pub(super) fn target(&mut self, target: &Expr<'_>) -> Written {
        match target {
            Expr::List(list) => {
                self.put("(");
                for item in &list.items {
                    self.target(item)?;
                    self.put(", ");
                }
                self.put(")");
                Ok(())
            }
            Expr::Var(name) => {
                self.put(name.id);
                Ok(())
            }
            Expr::GetAttr(part) => {
                self.target(&part.expr)?;
                self.put(".");
                self.put(part.name);
                Ok(())
            }
            _ => Err(Error::new(ErrorKind::SyntaxError, "this cannot be assigned to")),
        }
    }

    fn parameters(&mut self, Macro { args, defaults, .. }: &Macro<'_>) -> Written {
        let required = args.len().saturating_sub(defaults.len());
        self.put("(");
        for (index, argument) in args.iter().enumerate() {
            self.put(if index > 0 { ", " } else { "" });
            self.target(argument)?;
            if let Some(default) = index.checked_sub(required).and_then(|at| defaults.get(at)) {
                self.put("=");
                self.expression(default)?;
            }
        }
        self.put(")");
        Ok(())
    }
}

/// Whether something is put into a namespace.
fn is_stored(target: &Expr<'_>) -> bool {
    match target {
        Expr::GetAttr(_) => true,
        Expr::List(list) => list.items.iter().any(is_stored),
        _ => false,
    }
}

fn is_loop(call: &Call<'_>) -> bool {
    matches!(&call.expr, Expr::Var(name) if name.id == "loop")
}
