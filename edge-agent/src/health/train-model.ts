import { errorMessage } from '@outrider/shared/errors';
import type { AnalyserSettings, RobotModel } from '@outrider/shared/health/robot-analyser';
import { streamOf } from '@outrider/shared/health/robot-analyser';
import type { StreamModel } from '@outrider/shared/health/stream-model';
import { type TrainedStream, TrainingSet, trainStream } from '@outrider/shared/health/training';
import { SAMPLE_FLAGS } from '@outrider/shared/telemetry';
import { openPlayback, type PlaybackOptions } from '../sources/playback.ts';
import { openLabels } from './labels.ts';

export interface Training {
  readonly recording: PlaybackOptions;
  /** A column or a file; absent: everything in the recording is normal. */
  readonly labels: string | undefined;
  readonly settings: AnalyserSettings;
}

/** What became of a recording. */
export interface Trained {
  readonly model: RobotModel;
  readonly streams: readonly (Omit<TrainedStream, 'model'> & { readonly stream: string; readonly signals: number })[];
  /** Streams that taught nothing, and why. */
  readonly skipped: readonly { readonly stream: string; readonly reason: string }[];
  readonly samples: number;
  readonly labelledSamples: number;
  /** Samples that could not be read, and what was wrong with the first. */
  readonly malformed: number;
  readonly malformedWhy: string | undefined;
}

/** Reads a recording as the agent would and learns each of its streams. */
export async function trainModel({ recording, labels, settings }: Training): Promise<Trained> {
  const isFault = labels === undefined ? () => false : await openLabels(labels, recording);
  const set = new TrainingSet(settings);
  let samples = 0;
  let labelledSamples = 0;
  let malformed = 0;
  let malformedWhy: string | undefined;
  const playback = await openPlayback(recording);
  try {
    for await (const sample of playback.samples()) {
      const labelled = isFault(sample);
      samples += 1;
      if ((sample.flags & SAMPLE_FLAGS.malformed) !== 0) {
        malformed += 1;
        malformedWhy ??= sample.text;
        continue;
      }
      if (labelled) labelledSamples += 1;
      set.add(sample, labelled);
    }
  } finally {
    await playback.close();
  }
  const model = new Map<string, StreamModel>();
  const streams: Trained['streams'][number][] = [];
  const skipped: Trained['skipped'][number][] = [];
  for (const [key, windows] of set.streams) {
    const stream = streamOf(key);
    try {
      const { model: learnt, ...facts } = trainStream(windows);
      model.set(key, learnt);
      streams.push({ stream, signals: windows.signals.length, ...facts });
    } catch (error) {
      skipped.push({ stream, reason: errorMessage(error) });
    }
  }
  return { model, streams, skipped, samples, labelledSamples, malformed, malformedWhy };
}
