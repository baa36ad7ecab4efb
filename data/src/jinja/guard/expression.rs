//! What tags hold, written out again with calls around whatever can make something large.

use std::fmt::Write as _;

use minijinja::machinery::ast::{BinOpKind, Call, CallArg, CompareOpKind, Expr, UnaryOpKind};
use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, Value};

use super::statement::{Writer, Written};

/// Filters that make no list of a text's characters, by themselves or by the name of another filter.
const WHOLE: [&str; 21] = [
    "capitalize",
    "count",
    "d",
    "default",
    "e",
    "escape",
    "first",
    "float",
    "indent",
    "int",
    "join",
    "last",
    "length",
    "lower",
    "replace",
    "safe",
    "string",
    "title",
    "tojson",
    "trim",
    "upper",
];

impl Writer {
    pub(super) fn expression(&mut self, expr: &Expr<'_>) -> Written {
        match expr {
            Expr::Var(part) => self.put(part.id),
            Expr::Const(part) => self.constant(&part.value)?,
            Expr::Slice(part) => {
                self.put("graft_sized(graft_see(");
                self.expression(&part.expr)?;
                self.put(")[");
                for (index, bound) in [&part.start, &part.stop, &part.step].into_iter().enumerate()
                {
                    self.put(if index > 0 { ":" } else { "" });
                    if let Some(bound) = bound {
                        self.expression(bound)?;
                    }
                }
                self.put("])");
            }
            Expr::UnaryOp(part) => {
                self.put(match part.op {
                    UnaryOpKind::Not => "(not ",
                    UnaryOpKind::Neg => "(-",
                });
                self.expression(&part.expr)?;
                self.put(")");
            }
            Expr::BinOp(part) => self.operation(part.op, expr)?,
            Expr::Compare(part) => {
                self.put("(");
                self.seen(&part.expr)?;
                for next in &part.ops {
                    self.put(match next.op {
                        CompareOpKind::Eq => " == ",
                        CompareOpKind::Ne => " != ",
                        CompareOpKind::Lt => " < ",
                        CompareOpKind::Lte => " <= ",
                        CompareOpKind::Gt => " > ",
                        CompareOpKind::Gte => " >= ",
                        CompareOpKind::In => " in ",
                        CompareOpKind::NotIn => " not in ",
                    });
                    self.seen(&next.expr)?;
                }
                self.put(")");
            }
            Expr::IfExpr(part) => {
                self.put("(");
                self.expression(&part.true_expr)?;
                self.put(" if ");
                self.expression(&part.test_expr)?;
                if let Some(other) = &part.false_expr {
                    self.put(" else ");
                    self.expression(other)?;
                }
                self.put(")");
            }
            Expr::Filter(_) => {
                self.put("graft_sized(");
                self.filter(expr)?;
                self.put(")");
            }
            Expr::Test(part) => {
                self.put("(");
                if part.args.is_empty() {
                    self.base(&part.expr)?;
                } else {
                    self.seen(&part.expr)?;
                }
                let _ = write!(self.out, " is {}", part.name);
                if !part.args.is_empty() {
                    self.arguments(&part.args)?;
                }
                self.put(")");
            }
            Expr::GetAttr(part) => {
                self.base(&part.expr)?;
                self.put(".");
                self.put(part.name);
            }
            Expr::GetItem(part) => {
                self.base(&part.expr)?;
                self.put("[");
                self.expression(&part.subscript_expr)?;
                self.put("]");
            }
            Expr::Call(part) => {
                self.put("graft_sized(");
                self.call(part)?;
                self.put(")");
            }
            other => self.literal(other)?,
        }
        Ok(())
    }

    /// Lists and maps.
    fn literal(&mut self, expr: &Expr<'_>) -> Written {
        match expr {
            Expr::List(part) => {
                self.put("graft_sized([");
                for item in &part.items {
                    self.expression(item)?;
                    self.put(", ");
                }
                self.put("])");
            }
            Expr::Map(part) => {
                self.put("graft_sized({");
                for (key, value) in part.keys.iter().zip(&part.values) {
                    self.expression(key)?;
                    self.put(": ");
                    self.expression(value)?;
                    self.put(", ");
                }
                self.put("})");
            }
            _ => return Err(Error::new(ErrorKind::SyntaxError, "a form that is not known here")),
        }
        Ok(())
    }

    /// A chain of one operator, which is read from the left, as one call or one row.
    fn operation(&mut self, op: BinOpKind, expr: &Expr<'_>) -> Written {
        let (open, between) = match op {
            BinOpKind::Concat => ("graft_concat(", ", "),
            BinOpKind::Add => ("graft_add(", ", "),
            BinOpKind::Mul => ("graft_mul(", ", "),
            BinOpKind::ScAnd => ("(", " and "),
            BinOpKind::ScOr => ("(", " or "),
            BinOpKind::Sub => ("(", " - "),
            BinOpKind::Div => ("(", " / "),
            BinOpKind::FloorDiv => ("(", " // "),
            BinOpKind::Rem => ("(", " % "),
            BinOpKind::Pow => ("(", " ** "),
            BinOpKind::Eq => ("(", " == "),
            BinOpKind::Ne => ("(", " != "),
            BinOpKind::Lt => ("(", " < "),
            BinOpKind::Lte => ("(", " <= "),
            BinOpKind::Gt => ("(", " > "),
            BinOpKind::Gte => ("(", " >= "),
            BinOpKind::In => ("(", " in "),
        };
        let chains = !matches!(
            op,
            BinOpKind::Pow
                | BinOpKind::Eq
                | BinOpKind::Ne
                | BinOpKind::Lt
                | BinOpKind::Lte
                | BinOpKind::Gt
                | BinOpKind::Gte
                | BinOpKind::In
        );
        let (mut operands, mut left) = (Vec::new(), expr);
        while let Expr::BinOp(part) = left
            && std::mem::discriminant(&part.op) == std::mem::discriminant(&op)
            && (chains || operands.is_empty())
        {
            operands.push(&part.right);
            left = &part.left;
        }
        operands.push(left);
        self.put(open);
        for (index, operand) in operands.into_iter().rev().enumerate() {
            self.put(if index > 0 { between } else { "" });
            self.seen_if(!chains, operand)?;
        }
        self.put(")");
        Ok(())
    }

    /// A value that is gone through.
    fn seen(&mut self, expr: &Expr<'_>) -> Written {
        self.seen_if(true, expr)
    }

    fn seen_if(&mut self, seen: bool, expr: &Expr<'_>) -> Written {
        self.put(if seen { "graft_see(" } else { "" });
        self.expression(expr)?;
        self.put(if seen { ")" } else { "" });
        Ok(())
    }

    /// What stands before a dot or a bracket.
    fn base(&mut self, expr: &Expr<'_>) -> Written {
        let plain = matches!(expr, Expr::Var(_) | Expr::GetAttr(_) | Expr::GetItem(_));
        self.put(if plain { "" } else { "(" });
        self.expression(expr)?;
        self.put(if plain { "" } else { ")" });
        Ok(())
    }

    /// A filter and what it is applied to, if that is not a block.
    pub(super) fn filter(&mut self, expr: &Expr<'_>) -> Written {
        let Expr::Filter(part) = expr else { return self.expression(expr) };
        if let Some(subject) = &part.expr {
            let whole = WHOLE.contains(&part.name);
            self.put(if whole { "graft_see(" } else { "graft_see_each(" });
            self.expression(subject)?;
            self.put(")|");
        }
        self.put(part.name);
        if part.args.is_empty() { Ok(()) } else { self.arguments(&part.args) }
    }

    pub(super) fn call(&mut self, call: &Call<'_>) -> Written {
        match &call.expr {
            Expr::GetAttr(method) => {
                self.seen(&method.expr)?;
                self.put(".");
                self.put(method.name);
            }
            other => self.base(other)?,
        }
        self.arguments(&call.args)
    }

    fn arguments(&mut self, arguments: &[CallArg<'_>]) -> Written {
        self.put("(");
        for (index, argument) in arguments.iter().enumerate() {
            self.put(if index > 0 { ", " } else { "" });
            let value = match argument {
                CallArg::Pos(value) => value,
                CallArg::Kwarg(name, value) => {
                    self.put(name);
                    self.put("=");
                    value
                }
                CallArg::PosSplat(value) => {
                    self.put("*");
                    value
                }
                CallArg::KwargSplat(value) => {
                    self.put("**");
                    value
                }
            };
            self.expression(value)?;
        }
        self.put(")");
        Ok(())
    }

    fn constant(&mut self, value: &Value) -> Written {
        match value.kind() {
            ValueKind::None => self.put("none"),
            ValueKind::Bool => self.put(if value.is_true() { "true" } else { "false" }),
            ValueKind::String => self.text(value.as_str().unwrap_or_default()),
            ValueKind::Number if value.is_integer() => self.put(&value.to_string()),
            ValueKind::Number => match f64::try_from(value.clone()) {
                Ok(number) if number.is_finite() => {
                    let _ = write!(self.out, "{number:?}");
                }
                _ => return Err(Error::new(ErrorKind::SyntaxError, "a number without end")),
            },
            _ => {
                return Err(Error::new(
                    ErrorKind::SyntaxError,
                    "a constant that is not known here",
                ));
            }
        }
        Ok(())
    }

    pub(super) fn text(&mut self, text: &str) {
        self.out.push('"');
        for character in text.chars() {
            match character {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                other => self.out.push(other),
            }
        }
        self.out.push('"');
    }
}
