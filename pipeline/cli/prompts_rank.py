"""Verb prompts-rank: what each prompt adds."""

from argparse import ArgumentParser
from typing import get_args

from ..chain.task import CompetitionTask, Runtime
from ..core.errors import UserError
from ..recipes import BenchmarkPooling
from ._options import Arguments

HELP = "what each template and prompt adds, with labels or without"
USES = ("competition", "data", "model", "compute")
POOLINGS = get_args(BenchmarkPooling)


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--dataset", metavar="NAME", help="datasets/NAME.yaml (default: the competition, unlabelled)")
    parser.add_argument("--split", help="split that is ranked on (default: the data set's dev)")
    parser.add_argument("--prompts", metavar="NAME", help="prompts/NAME/ (default: the data set's or competition's)")
    parser.add_argument("--pooling", default="embedding", choices=POOLINGS, help="default: embedding")
    parser.add_argument("--unlabelled", action="store_true", help="look at no label")
    parser.add_argument("--test-labels", action="store_true", help="look at the labels of the split that is reported")


def run(runtime: Runtime, args: Arguments) -> None:
    from ..labelled import prompts_rank
    from ..labelled.task import DatasetTask

    task = CompetitionTask.of(runtime, args.competition, asked_prompts=args.prompts)
    if args.dataset:
        split = args.split or (None if args.test_labels else runtime.project.dataset(args.dataset).dev)
        task = DatasetTask.of(runtime, args.dataset, asked_split=split, asked_prompts=args.prompts)
    elif args.split:
        raise UserError("SPLIT= goes with DATASET=name")
    if not args.model:
        raise UserError("give MODEL=name")
    member = runtime.project.member(args.model, args.preprocess)
    prompts_rank.rank_prompts(task, member, args.pooling, not args.unlabelled, args.test_labels)
