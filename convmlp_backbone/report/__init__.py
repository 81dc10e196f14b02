"""What `convmlp report` writes: one HTML file about a training and what its model finds.

`work_dir` says what a training left, `evaluation` runs its model on the validation set or reads
predictions; `detection`, `segmentation` and `classification` judge them, with hotcoco's numbers;
`charts`, `gallery` and `page` draw; `run_report` and `comparison` put it together.
"""
