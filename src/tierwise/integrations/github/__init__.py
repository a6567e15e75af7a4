"""tierwise in GitHub Actions: one comment on a pull request that says what its agents cost.

`spending` is what a job spent, `comment` the comment and the sums that it carries from run to run, `workflow` what a
job knows of itself, `api` the few requests to GitHub, `publish` keeps the comment one. `tierwise comment` runs it,
and the action in `deploy/github-action` that.
"""
