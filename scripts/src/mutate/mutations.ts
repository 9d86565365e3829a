import ts from 'typescript';

/** One small change of a source text. */
export interface Mutation {
  /** From 1. */
  readonly line: number;
  readonly column: number;
  readonly start: number;
  readonly end: number;
  readonly replacement: string;
  /** For people: `a < b → a <= b`. */
  readonly words: string;
}

const { SyntaxKind } = ts;

/** What each operator becomes: its neighbour, and its opposite. */
const OPERATORS: ReadonlyMap<ts.SyntaxKind, readonly string[]> = new Map([
  [SyntaxKind.LessThanToken, ['<=', '>=']],
  [SyntaxKind.LessThanEqualsToken, ['<', '>']],
  [SyntaxKind.GreaterThanToken, ['>=', '<=']],
  [SyntaxKind.GreaterThanEqualsToken, ['>', '<']],
  [SyntaxKind.EqualsEqualsEqualsToken, ['!==']],
  [SyntaxKind.ExclamationEqualsEqualsToken, ['===']],
  [SyntaxKind.AmpersandAmpersandToken, ['||']],
  [SyntaxKind.BarBarToken, ['&&']],
  [SyntaxKind.PlusToken, ['-']],
  [SyntaxKind.MinusToken, ['+']],
  [SyntaxKind.AsteriskToken, ['/']],
  [SyntaxKind.SlashToken, ['*']],
  [SyntaxKind.PlusEqualsToken, ['-=']],
]);
const LOGICAL: readonly ts.SyntaxKind[] = [SyntaxKind.AmpersandAmpersandToken, SyntaxKind.BarBarToken];
const METHODS: Readonly<Record<string, string>> = { max: 'min', min: 'max', some: 'every', every: 'some' };
const WORDS_MAX = 60;

/**
 * Every mutation of a source text: comparisons shifted and turned round, constants ±1, conditions dropped, negated
 * and made constant, `&&` and `||` swapped, branches taken always, statements removed, `max` and `min`, `some` and
 * `every` swapped. Types and texts for people stay: nothing is decided by them.
 */
export function mutationsOf(file: string, text: string): Mutation[] {
  const source = ts.createSourceFile(file, text, ts.ScriptTarget.ES2023, true);
  const found: Mutation[] = [];
  const add = (node: ts.Node, replacement: string): void => {
    const start = node.getStart(source);
    const before = node.getText(source);
    if (before === replacement) return;
    const { line, character } = source.getLineAndCharacterOfPosition(start);
    const words = `${short(before)} → ${short(replacement)}`;
    found.push({ line: line + 1, column: character + 1, start, end: node.getEnd(), replacement, words });
  };
  const visit = (node: ts.Node): void => {
    if (ts.isTypeNode(node) || ts.isTemplateExpression(node) || ts.isImportDeclaration(node)) return;
    if (ts.isInterfaceDeclaration(node) || ts.isTypeAliasDeclaration(node)) return;
    mutateNode(node, source, add);
    ts.forEachChild(node, visit);
  };
  visit(source);
  return found;
}

type Add = (node: ts.Node, replacement: string) => void;

function mutateNode(node: ts.Node, source: ts.SourceFile, add: Add): void {
  const textOf = (inner: ts.Node): string => inner.getText(source);
  if (ts.isBinaryExpression(node)) {
    const { left, right, operatorToken } = node;
    for (const operator of OPERATORS.get(operatorToken.kind) ?? [])
      add(node, `${textOf(left)} ${operator} ${textOf(right)}`);
    if (LOGICAL.includes(operatorToken.kind)) {
      add(node, textOf(left));
      add(node, textOf(right));
    }
  } else if (ts.isNumericLiteral(node) && !ts.isLiteralTypeNode(node.parent)) {
    const value = Number(node.text.replaceAll('_', ''));
    add(node, String(value + 1));
    add(node, ts.isPrefixUnaryExpression(node.parent) ? String(Math.abs(value - 1)) : `(${value - 1})`);
  } else if (ts.isPrefixUnaryExpression(node) && node.operator === SyntaxKind.ExclamationToken) {
    add(node, `!${textOf(node)}`);
  } else if (node.kind === SyntaxKind.TrueKeyword) add(node, 'false');
  else if (node.kind === SyntaxKind.FalseKeyword) add(node, 'true');
  else if (ts.isConditionalExpression(node)) {
    add(node, `(${textOf(node.whenTrue)})`);
    add(node, `(${textOf(node.whenFalse)})`);
  } else if (ts.isIfStatement(node) || ts.isWhileStatement(node)) {
    if (ts.isIfStatement(node)) add(node.expression, 'true');
    add(node.expression, 'false');
    add(node.expression, `!(${textOf(node.expression)})`);
  } else if (ts.isPropertyAccessExpression(node) && ts.isCallExpression(node.parent)) {
    const swapped = METHODS[node.name.text];
    if (swapped !== undefined && node.parent.expression === node) add(node.name, swapped);
  } else if (ts.isExpressionStatement(node)) add(node, ';');
  else if (ts.isReturnStatement(node) && isEarlyReturn(node)) add(node, ';');
}

/** A return that something follows: removing it falls through. */
function isEarlyReturn(node: ts.ReturnStatement): boolean {
  const { parent } = node;
  if (ts.isIfStatement(parent)) return true;
  return ts.isBlock(parent) && ts.isIfStatement(parent.parent) && parent.statements.at(-1) === node;
}

const short = (text: string): string => {
  const line = text.replace(/\s+/g, ' ');
  return line.length > WORDS_MAX ? `${line.slice(0, WORDS_MAX)}…` : line;
};

/** The mutated text as the JavaScript that the build would make of it. */
export function transpiled(text: string, { start, end, replacement }: Mutation): string {
  return ts.transpileModule(text.slice(0, start) + replacement + text.slice(end), {
    compilerOptions: {
      target: ts.ScriptTarget.ES2023,
      module: ts.ModuleKind.ESNext,
      verbatimModuleSyntax: true,
      rewriteRelativeImportExtensions: true,
    },
  }).outputText;
}
