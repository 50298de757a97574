"""Make a bucket at AWS_ENDPOINT_URL if it is not there: make_bucket.py NAME."""

import sys

import boto3
from botocore.config import Config

name = sys.argv[1]
client = boto3.client("s3", config=Config(retries={"total_max_attempts": 10, "mode": "standard"}))
if name not in [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]:
    client.create_bucket(Bucket=name)
