"""Readers of raw data: `detect` finds out what a source is, and plans the jobs that read it.

The source is a folder or a .zip of recordings, with one recording in each file:
- listing: its files (raw_files), and the format of each by format_table
- recordings: a published dataset, recognized by the names of its files; reading recordings
- labeled: a user's own, labeled by labels_csv, their names or their folders
- find_recordings: for predictions and pictures, and what to say if there is none
Each format of a recording has a module, which format_table lists (joint_columns belongs to
joint_csv). They share json_values (numbers and names), people (missing joints), tracks (which turns
the people of each frame into the bodies of a recording) and pixels (their scale).

Or the source has many clips in one file:
- padded: SGN's .h5 and CTR-GCN's .npz; named_arrays: .npy files of 2s-AGCN (both use array_files)
- pyskl: PYSKL's pickles; pickles reads any pickle without running code
- described: tables of clips that a .yaml describes; tables and table_clips read them
naming gives such files the names of datasets, cases and classes.
"""
